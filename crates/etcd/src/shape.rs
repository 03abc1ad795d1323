//! A transaction's shape, read from its bytes before anything is built from them.
//!
//! A transaction may hold transactions. Whoever decodes one recurses, and an operation of two bytes on the wire becomes a hundred and
//! more in memory; so depth and number are judged here first, in one pass without recursion that keeps one number per open level.

use crate::error::{EtcdError, TOO_MANY_OPS, TXN_TOO_DEEP};
use crate::options::{TXN_DEPTH_ETCD, TXN_PARTS_MAX};
use quorate_kv::limits;

// Fields of the messages that are looked into: see proto/rpc.proto.
const TXN_COMPARE: u64 = 1;
const TXN_SUCCESS: u64 = 2;
const TXN_FAILURE: u64 = 3;
const OP_TXN: u64 = 4;

/// Why a transaction is not decoded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Misshapen {
    /// It breaks a bound.
    Refused(EtcdError),
    /// It is no protocol buffer, or uses the groups that no message of this protocol has.
    Malformed,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Inside {
    Txn,
    Op,
}

/// Judges an encoded `TxnRequest`. What passes holds at most [`TXN_PARTS_MAX`] operations and compares, at most
/// [`limits::TXN_DEPTH_MAX`] levels below the first.
pub(crate) fn judge(message: &[u8]) -> Result<(), Misshapen> {
    let mut open = vec![(Inside::Txn, message.len())];
    let (mut at, mut parts, mut depth, mut deepest) = (0, 0, 0, 0);
    while let Some(&(inside, end)) = open.last() {
        if at == end {
            open.pop();
            depth -= usize::from(inside == Inside::Txn && !open.is_empty());
            continue;
        }
        let (field, value_end) = skip_field(message, &mut at, end).ok_or(Misshapen::Malformed)?;
        let Some(value_end) = value_end else { continue };
        match (inside, field) {
            (Inside::Txn, TXN_SUCCESS | TXN_FAILURE) => {
                parts += 1;
                open.push((Inside::Op, value_end));
            }
            (Inside::Op, OP_TXN) => {
                depth += 1;
                deepest = deepest.max(depth);
                open.push((Inside::Txn, value_end));
            }
            (Inside::Txn, TXN_COMPARE) => {
                parts += 1;
                at = value_end;
            }
            _ => at = value_end,
        }
        // What etcd refuses as well is refused in its words, without looking at the rest.
        if parts > TXN_PARTS_MAX || depth > TXN_DEPTH_ETCD {
            return Err(Misshapen::Refused(TOO_MANY_OPS));
        }
    }
    if deepest > limits::TXN_DEPTH_MAX { Err(Misshapen::Refused(TXN_TOO_DEEP)) } else { Ok(()) }
}

/// Reads a field's number and moves past it; of a field that holds bytes, moves to them and returns where they end.
fn skip_field(message: &[u8], at: &mut usize, end: usize) -> Option<(u64, Option<usize>)> {
    let key = varint(message, at, end)?;
    let fixed = match key & 7 {
        0 => {
            varint(message, at, end)?;
            0
        }
        1 => 8,
        5 => 4,
        2 => {
            let len = usize::try_from(varint(message, at, end)?).ok()?;
            let value_end = at.checked_add(len).filter(|value_end| *value_end <= end)?;
            return Some((key >> 3, Some(value_end)));
        }
        _ => return None,
    };
    *at = at.checked_add(fixed).filter(|at| *at <= end)?;
    Some((key >> 3, None))
}

fn varint(message: &[u8], at: &mut usize, end: usize) -> Option<u64> {
    let mut number = 0;
    for shift in (0..64).step_by(7) {
        let byte = *message[..end].get(*at)?;
        *at += 1;
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
    use crate::proto::etcdserverpb::request_op::Request;
    use crate::proto::etcdserverpb::{Compare, PutRequest, RequestOp, TxnRequest};
    use prost::Message;

    /// A put under `levels` transactions below the first, as bytes: built from the inside, without recursion.
    fn nested(levels: usize) -> Vec<u8> {
        let put = PutRequest { key: "k".into(), ..Default::default() };
        let mut message =
            TxnRequest { success: vec![op(Request::RequestPut(put))], ..Default::default() }.encode_to_vec();
        for _ in 0..2 * levels {
            // By turns field 4 of an operation and field 2 of a transaction; both have keys of one byte.
            let key = if message[0] == 0x12 { 0x22 } else { 0x12 };
            let mut outer = vec![key];
            prost::encoding::encode_varint(message.len() as u64, &mut outer);
            outer.append(&mut message);
            message = outer;
        }
        message
    }

    fn op(request: Request) -> RequestOp {
        RequestOp { request: Some(request) }
    }

    #[test]
    fn depth_is_bounded_at_any_depth() {
        let depth_max = limits::TXN_DEPTH_MAX;
        assert!(TxnRequest::decode(&nested(depth_max)[..]).is_ok(), "what passes can be decoded");
        for (levels, verdict) in [
            (0, Ok(())),
            (1, Ok(())),
            (depth_max, Ok(())),
            (depth_max + 1, Err(Misshapen::Refused(TXN_TOO_DEEP))),
            (TXN_DEPTH_ETCD, Err(Misshapen::Refused(TXN_TOO_DEEP))),
            (TXN_DEPTH_ETCD + 1, Err(Misshapen::Refused(TOO_MANY_OPS))),
            (5_000, Err(Misshapen::Refused(TOO_MANY_OPS))),
        ] {
            assert_eq!(judge(&nested(levels)), verdict, "{levels} levels");
        }
    }

    #[test]
    fn siblings_do_not_add_to_the_depth_but_to_the_number() {
        let inner =
            || op(Request::RequestTxn(TxnRequest { success: vec![RequestOp::default()], ..Default::default() }));
        let wide = TxnRequest {
            compare: vec![Compare::default(); 3],
            success: (0..TXN_DEPTH_ETCD * 2).map(|_| inner()).collect(),
            failure: (0..TXN_DEPTH_ETCD * 2).map(|_| inner()).collect(),
        };
        assert_eq!(judge(&wide.encode_to_vec()), Ok(()));
        let crowd = |parts: usize| TxnRequest { failure: vec![RequestOp::default(); parts], ..Default::default() };
        assert_eq!(judge(&crowd(TXN_PARTS_MAX).encode_to_vec()), Ok(()));
        assert_eq!(judge(&crowd(TXN_PARTS_MAX + 1).encode_to_vec()), Err(Misshapen::Refused(TOO_MANY_OPS)));
    }

    #[test]
    fn no_cut_and_no_flipped_bit_confuses_it() {
        let whole = nested(3);
        for len in 0..whole.len() {
            // A cut message is malformed to both or to neither; what passes here must not surprise the decoder by its depth.
            assert_eq!(judge(&whole[..len]).is_ok(), TxnRequest::decode(&whole[..len]).is_ok(), "cut at {len}");
        }
        for bit in 0..whole.len() * 8 {
            let mut flipped = whole.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            if TxnRequest::decode(&flipped[..]).is_ok() {
                // Groups are refused although the decoder would skip them.
                let group = flipped[bit / 8] & 7 == 3;
                assert!(judge(&flipped).is_ok() || group, "bit {bit}");
            }
        }
    }

    #[test]
    fn what_a_newer_client_adds_is_passed_over_at_its_whole_length() {
        let known = nested(1);
        // Field 99 as a varint, as eight bytes, as some bytes and as four bytes: each in two bytes of key.
        for (wire, value) in [(0, &[0xFF, 0x01][..]), (1, &[0x12; 8]), (2, &[3, 0x12, 0xFF, 0x22]), (5, &[0x22; 4])] {
            let mut added = Vec::new();
            prost::encoding::encode_varint(99 << 3 | wire, &mut added);
            added.extend_from_slice(value);
            let (before, after) = ([&added[..], &known].concat(), [&known[..], &added].concat());
            for message in [&before, &after] {
                assert!(TxnRequest::decode(&message[..]).is_ok(), "the decoder passes over it, too");
                assert_eq!(judge(message), Ok(()), "wire type {wire}");
            }
            assert!(judge(&after[..after.len() - 1]).is_err(), "cut off: wire type {wire}");
        }
    }
}
