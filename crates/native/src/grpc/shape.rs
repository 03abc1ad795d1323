//! A request's shape, read from its bytes before anything is built from them.
//!
//! A field that no message of ours has is refused: whoever means it as a condition must not be served without it. And a part of two bytes on the
//! wire becomes a hundred and more in memory, so their number is bounded here.

use super::tables::MESSAGES;
use crate::answers::Failure;

/// Fields of a request with all that are in it: more than any client sends, and decoded they take some 10 MB.
pub(super) const PARTS_MAX: usize = 1 << 16;

/// Judges an encoded message of a type, which is named as in descriptors (`.package.Message`).
pub(super) fn judge(name: &str, message: &[u8]) -> Result<(), Failure> {
    walk(name, message, &mut 0)
}

/// Messages do not contain themselves, so this is as deep as they are.
fn walk(name: &str, mut rest: &[u8], parts: &mut usize) -> Result<(), Failure> {
    let (_, fields) = MESSAGES.iter().find(|(known, _)| *known == name).expect("a message of the definition");
    while !rest.is_empty() {
        let (number, value) = field(&mut rest).ok_or_else(|| malformed(name))?;
        let Some((_, inner)) = fields.iter().find(|(known, _)| *known == number) else {
            let name = name.rsplit('.').next().unwrap_or(name);
            return Err(Failure::Bad(format!(
                "{name} has no field {number}: this server would not know what it means"
            )));
        };
        *parts += 1;
        if *parts > PARTS_MAX {
            return Err(Failure::TooMany { max: PARTS_MAX });
        }
        match (inner, value) {
            (None, _) => {}
            (Some(inner), Some(value)) => walk(inner, value, parts)?,
            (Some(_), None) => return Err(malformed(name)),
        }
    }
    Ok(())
}

fn malformed(name: &str) -> Failure {
    let name = name.rsplit('.').next().unwrap_or(name);
    Failure::Bad(format!("these bytes are no {name}"))
}

/// Takes a field off: its number, and its bytes if it has some.
fn field<'a>(rest: &mut &'a [u8]) -> Option<(u64, Option<&'a [u8]>)> {
    let key = varint(rest)?;
    let value = match key & 7 {
        0 => varint(rest).map(|_| None),
        1 => take(rest, 8).map(|_| None),
        2 => {
            let len = usize::try_from(varint(rest)?).ok()?;
            take(rest, len).map(Some)
        }
        5 => take(rest, 4).map(|_| None),
        // Groups, which no message of ours has.
        _ => None,
    };
    Some((key >> 3, value?))
}

fn take<'a>(rest: &mut &'a [u8], len: usize) -> Option<&'a [u8]> {
    let (taken, behind) = rest.split_at_checked(len)?;
    *rest = behind;
    Some(taken)
}

fn varint(rest: &mut &[u8]) -> Option<u64> {
    let mut number = 0;
    for shift in (0..64).step_by(7) {
        let byte = take(rest, 1)?[0];
        number |= u64::from(byte & 0x7F) << shift;
        if byte < 0x80 {
            return Some(number);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::grpc::proto::{Compare, Condition, Entry, PutRequest, Read, TransactRequest, Write, compare, write};
    use prost::Message;

    const TRANSACT: &str = ".quorate.v1.TransactRequest";

    fn transact() -> Vec<u8> {
        let (keyspace, key) = (String::from("orders"), "k".into());
        let put = write::What::Put(Entry { key: "k".into(), value: "v".into() });
        TransactRequest {
            compare: vec![Compare {
                keyspace: keyspace.clone(),
                key,
                op: 1,
                expected: Some(compare::Expected::Version(3)),
            }],
            read: vec![Read { keyspace: keyspace.clone(), prefix: Some("p".into()), limit: 300, ..Read::default() }],
            write: vec![Write { keyspace, what: Some(put) }],
            otherwise: Vec::new(),
            idempotency_key: Some("order-17".into()),
            ..TransactRequest::default()
        }
        .encode_to_vec()
    }

    #[test]
    fn what_is_known_passes_at_every_depth_and_what_is_not_is_named() {
        judge(TRANSACT, &transact()).expect("all is known");
        let condition = Condition { exists: Some(false), ..Condition::default() };
        let put = PutRequest { condition: Some(condition), ..PutRequest::default() }.encode_to_vec();
        judge(".quorate.v1.PutRequest", &put).expect("all is known");
        let refused = |name: &str, message: &[u8]| match judge(name, message) {
            Err(Failure::Bad(message)) => message,
            other => panic!("{other:?}"),
        };
        assert!(refused(TRANSACT, &[0x4A, 0]).starts_with("TransactRequest has no field 9"));
        // A condition with a field more, within a put.
        assert!(refused(".quorate.v1.PutRequest", &[0x22, 2, 0x78, 1]).starts_with("Condition has no field 15"));
    }

    #[test]
    fn no_cut_and_no_flipped_bit_confuses_it() {
        let whole = transact();
        for len in 0..whole.len() {
            // What is cut is malformed to both, or to neither.
            assert_eq!(judge(TRANSACT, &whole[..len]).is_ok(), TransactRequest::decode(&whole[..len]).is_ok(), "{len}");
        }
        for bit in 0..whole.len() * 8 {
            let mut flipped = whole.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            // It may pass or not, and says so; what passes is at most refused by whoever decodes it.
            let _ = judge(TRANSACT, &flipped);
        }
    }

    #[test]
    fn the_number_of_parts_is_bounded() {
        let crowd = |parts: usize| TransactRequest { write: vec![Write::default(); parts], ..Default::default() };
        assert!(judge(TRANSACT, &crowd(PARTS_MAX).encode_to_vec()).is_ok());
        let refused = judge(TRANSACT, &crowd(PARTS_MAX + 1).encode_to_vec());
        assert!(matches!(refused, Err(Failure::TooMany { max: PARTS_MAX })));
    }
}
