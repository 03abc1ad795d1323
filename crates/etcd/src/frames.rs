//! What a client may send as one message, judged while it arrives.
//!
//! A gRPC message announces its length before it comes. One that is too large is refused then, in the words of etcd's gRPC library, and
//! one that has begun must end in time: an announced message holds memory for as long as its bytes trickle in. Between messages a
//! stream may be as quiet as it likes.

use crate::options::MESSAGE_TIMEOUT;
use bytes::Bytes;
use hyper::body::{Body, Frame, SizeHint};
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use tokio::time::{Instant, Sleep, sleep_until};
use tonic::Status;

/// A flag and the length.
const HEAD_BYTES: usize = 5;

/// Follows the messages in a request's bytes.
#[derive(Debug, Default)]
struct Cursor {
    head: [u8; HEAD_BYTES],
    /// Bytes of the head that have come.
    head_len: usize,
    /// Bytes of the message that have not.
    missing: usize,
}

impl Cursor {
    /// Moves over a piece of the request; fails at the head of a message that is too large.
    fn advance(&mut self, mut piece: &[u8], message_bytes_max: usize) -> Result<(), Status> {
        while !piece.is_empty() {
            if self.missing > 0 {
                let (_, rest) = piece.split_at(self.missing.min(piece.len()));
                self.missing -= piece.len() - rest.len();
                piece = rest;
                continue;
            }
            self.head[self.head_len] = piece[0];
            self.head_len += 1;
            piece = &piece[1..];
            if self.head_len == HEAD_BYTES {
                let [_, length @ ..] = self.head;
                (self.head_len, self.missing) = (0, u32::from_be_bytes(length) as usize);
                if self.missing > message_bytes_max {
                    let length = self.missing;
                    return Err(Status::resource_exhausted(format!(
                        "grpc: received message larger than max ({length} vs. {message_bytes_max})"
                    )));
                }
            }
        }
        Ok(())
    }

    fn within_message(&self) -> bool {
        self.head_len > 0 || self.missing > 0
    }
}

/// A request's body, bounded message by message.
pub(crate) struct Frames<B> {
    body: B,
    cursor: Cursor,
    message_bytes_max: usize,
    /// When the message that has begun must have ended.
    deadline: Option<Pin<Box<Sleep>>>,
}

impl<B> Frames<B> {
    pub fn new(body: B, message_bytes_max: usize) -> Self {
        Self { body, cursor: Cursor::default(), message_bytes_max, deadline: None }
    }
}

impl<B> Body for Frames<B>
where
    B: Body<Data = Bytes> + Unpin,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let this = &mut *self;
        let Poll::Ready(frame) = Pin::new(&mut this.body).poll_frame(cx) else {
            if let Some(deadline) = &mut this.deadline {
                ready!(deadline.as_mut().poll(cx));
                return Poll::Ready(Some(Err(Status::deadline_exceeded("quorate: a message was sent too slowly"))));
            }
            return Poll::Pending;
        };
        let Some(frame) = frame.transpose().map_err(|e| Status::from_error(e.into()))? else {
            return Poll::Ready(None);
        };
        if let Some(piece) = frame.data_ref() {
            // A message that begins in this piece gets its own time, if the piece ended the one before.
            let before = std::mem::take(&mut this.deadline).filter(|_| piece.len() < this.cursor.missing);
            this.cursor.advance(piece, this.message_bytes_max)?;
            if this.cursor.within_message() {
                let fresh = || Box::pin(sleep_until(Instant::now() + MESSAGE_TIMEOUT));
                this.deadline = Some(before.unwrap_or_else(fresh));
            }
        }
        Poll::Ready(Some(Ok(frame)))
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(bytes: usize) -> Vec<u8> {
        let mut out = vec![0];
        out.extend_from_slice(&u32::try_from(bytes).expect("small").to_be_bytes());
        out.resize(HEAD_BYTES + bytes, 0xAA);
        out
    }

    #[test]
    fn messages_are_followed_however_they_are_cut() {
        let stream = [message(0), message(7), message(100), message(1)].concat();
        for piece in 1..stream.len() {
            let mut cursor = Cursor::default();
            for (n, part) in stream.chunks(piece).enumerate() {
                assert!(cursor.advance(part, 100).is_ok(), "pieces of {piece}");
                let end = ((n + 1) * piece).min(stream.len());
                let ends = [5, 17, 122, 128];
                assert_eq!(cursor.within_message(), !ends.contains(&end), "pieces of {piece}, at {end}");
            }
            let mut cursor = Cursor::default();
            let refused =
                stream.chunks(piece).find_map(|part| cursor.advance(part, 99).err()).expect("100 is too large");
            assert_eq!(refused.message(), "grpc: received message larger than max (100 vs. 99)");
            assert_eq!(refused.code(), tonic::Code::ResourceExhausted);
        }
    }

    /// A body that trickles: a piece, then silence.
    struct Trickle(Option<Vec<u8>>);

    impl Body for Trickle {
        type Data = Bytes;
        type Error = std::convert::Infallible;

        fn poll_frame(
            mut self: Pin<&mut Self>,
            _: &mut Context<'_>,
        ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
            self.0.take().map_or(Poll::Pending, |piece| Poll::Ready(Some(Ok(Frame::data(piece.into())))))
        }
    }

    async fn next(frames: &mut Frames<Trickle>) -> Option<Result<Frame<Bytes>, Status>> {
        std::future::poll_fn(|cx| Pin::new(&mut *frames).poll_frame(cx)).await
    }

    #[tokio::test]
    async fn a_message_that_has_begun_has_a_deadline_and_a_quiet_stream_has_none() {
        let mut frames = Frames::new(Trickle(Some(message(10))), 100);
        assert!(next(&mut frames).await.is_some_and(|frame| frame.is_ok()));
        assert!(frames.deadline.is_none(), "a whole message has come");

        let mut frames = Frames::new(Trickle(Some(message(10)[..9].to_vec())), 100);
        assert!(next(&mut frames).await.is_some_and(|frame| frame.is_ok()));
        let deadline = frames.deadline.as_mut().expect("a message has begun");
        assert!(deadline.deadline() > Instant::now() + MESSAGE_TIMEOUT / 2);
        let due = deadline.deadline();
        frames.body.0 = Some(vec![1]);
        assert!(next(&mut frames).await.is_some_and(|frame| frame.is_ok()));
        assert_eq!(frames.deadline.as_ref().expect("it has not ended").deadline(), due, "trickling earns no more time");
        frames.deadline.as_mut().expect("it has not ended").as_mut().reset(Instant::now());
        let late = next(&mut frames).await.expect("an error").expect_err("too late");
        assert_eq!(late.code(), tonic::Code::DeadlineExceeded);
    }
}
