//! Rows on top of a snapshot, against a store in which all of them are written.

use super::*;

fn key(rng: &mut Rng) -> Bytes {
    vec![b'a' + rng.below(6) as u8; rng.between(1, 3) as usize].into()
}

fn batch(rng: &mut Rng, mark: u64) -> WriteBatch {
    let mut batch = WriteBatch::new();
    for _ in 0..rng.between(1, 4) {
        match rng.chance(300) {
            true => batch.delete(key(rng)),
            false => batch.put(key(rng), mark.to_string()),
        }
    }
    batch
}

fn bound(rng: &mut Rng) -> Bound<Bytes> {
    match rng.below(3) {
        0 => Bound::Unbounded,
        1 => Bound::Included(key(rng)),
        _ => Bound::Excluded(key(rng)),
    }
}

#[test]
fn what_is_above_hides_what_is_below_until_that_has_caught_up() {
    for seed in 1..=200 {
        let mut rng = Rng::new(seed);
        let (whole, below) = (ModelStore::new(), ModelStore::new());
        let mut ahead: Vec<WriteBatch> = Vec::new();
        let mut caught_up = 0;
        let overlay = Overlay::over(below.snapshot());
        for mark in 1..=40 {
            let written = batch(&mut rng, mark);
            ahead.push(written.clone());
            whole.write(&mut written.clone()).unwrap();
            overlay.mark(mark);
            overlay.write(&mut written.clone()).unwrap();
            if rng.chance(200) {
                // The one below is written to by and by, and publishes what it has.
                for mut late in ahead.drain(..rng.between(0, ahead.len() as u64) as usize) {
                    below.write(&mut late).unwrap();
                    caught_up += 1;
                }
                below.publish();
                overlay.rebase(below.snapshot(), caught_up);
            }
            let (from, to, reverse) = (bound(&mut rng), bound(&mut rng), rng.chance(500));
            let expected = all(whole.scan(from.clone(), to.clone(), reverse));
            assert_eq!(all(overlay.scan(from.clone(), to.clone(), reverse)), expected, "seed {seed}, {mark}");
            assert_eq!(all(overlay.snapshot().scan(from, to, reverse)), expected, "seed {seed}, {mark}");
            let one = key(&mut rng);
            assert_eq!(overlay.get(&one).unwrap(), whole.get(&one).unwrap());
        }
        let caught_up = ahead.is_empty();
        assert_eq!((overlay.is_empty(), overlay.memory_bytes() == 0), (caught_up, caught_up), "seed {seed}");
        for mut late in ahead {
            below.write(&mut late).unwrap();
        }
        below.publish();
        overlay.rebase(below.snapshot(), 40);
        assert_eq!((overlay.len(), overlay.memory_bytes()), (0, 0), "nothing is kept that the one below has");
    }
}

#[test]
fn a_snapshot_of_it_is_not_changed() {
    let overlay = Overlay::over(ModelStore::new().snapshot());
    let put = |value: &'static str| {
        let mut batch = WriteBatch::new();
        batch.put("k", value);
        overlay.write(&mut batch).unwrap();
    };
    put("before");
    let snapshot = overlay.snapshot();
    put("after");
    assert_eq!(snapshot.get(b"k").unwrap(), Some("before".into()));
    assert_eq!(overlay.get(b"k").unwrap(), Some("after".into()));
    let mut batch = WriteBatch::new();
    batch.put("", "no key");
    assert!(matches!(overlay.write(&mut batch), Err(StoreError::KeySize { bytes: 0 })));
    assert!(overlay.seal().is_none());
}
