//! Small gRPC over HTTP/2: messages by hand, unary calls and streams, TCP, TLS and unix sockets.
//!
//! It knows no service. Whoever uses it writes and reads its few messages with [`Writer`] and [`Reader`].

mod authority;
mod body;
mod channel;
mod error;
mod frame;
mod serve;
mod stream;
mod wire;

pub use channel::{Channel, Connection, Target};
pub use error::{Code, RpcError};
pub use serve::{Answer, Reply, answer, answer_with_streams};
pub use stream::Stream;
pub use wire::{Reader, Value, WireError, Writer};
