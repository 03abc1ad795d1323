//! How messages become bytes and back: as everywhere with gRPC, but that a transaction is judged before it is decoded.

use crate::proto::etcdserverpb::TxnRequest;
use crate::shape::{self, Misshapen};
use bytes::Buf;
use prost::Message;
use std::any::TypeId;
use std::marker::PhantomData;
use tonic::Status;
use tonic::codec::{Codec as TonicCodec, DecodeBuf, Decoder as TonicDecoder};
use tonic_prost::ProstEncoder;

/// The codec of every call of the generated clients and services.
#[derive(Debug)]
pub struct Codec<T, U>(PhantomData<(T, U)>);

impl<T, U> Default for Codec<T, U> {
    fn default() -> Self {
        Self(PhantomData)
    }
}

impl<T, U> TonicCodec for Codec<T, U>
where
    T: Message + Send + 'static,
    U: Message + Default + Send + 'static,
{
    type Encode = T;
    type Decode = U;
    type Encoder = ProstEncoder<T>;
    type Decoder = Decoder<U>;

    fn encoder(&mut self) -> Self::Encoder {
        ProstEncoder::default()
    }

    fn decoder(&mut self) -> Self::Decoder {
        Decoder(PhantomData)
    }
}

/// See the module.
#[derive(Debug)]
pub struct Decoder<U>(PhantomData<U>);

impl<U: Message + Default + 'static> TonicDecoder for Decoder<U> {
    type Item = U;
    type Error = Status;

    fn decode(&mut self, buf: &mut DecodeBuf<'_>) -> Result<Option<U>, Status> {
        // The only message that contains itself, and the only one of which a client decides how many parts it has.
        if TypeId::of::<U>() == TypeId::of::<TxnRequest>() {
            // tonic hands out a message in one piece; were it not, its beginning alone would be malformed.
            shape::judge(buf.chunk()).map_err(|why| match why {
                Misshapen::Refused(refusal) => refusal.into(),
                Misshapen::Malformed => undecodable("not a transaction"),
            })?;
        }
        U::decode(buf).map(Some).map_err(|e| undecodable(&e.to_string()))
    }
}

/// In the words of etcd's gRPC library.
fn undecodable(why: &str) -> Status {
    Status::internal(format!("grpc: error unmarshalling request: {why}"))
}
