//! A process's input and output, and connections to a pod's ports, over a connection that a client has upgraded: what
//! `kubectl exec`, `attach` and `port-forward` speak with a node, and a kubelet with its runtime.
//!
//! [`run`] and [`forward`] answer a request and serve what comes of it. Below them lie [`websocket`] channels and, for
//! older clients, SPDY/3.1; both are the same channels to whoever joins them with a process or a port.

mod channels;
mod port_forward;
mod remote;
mod serve;
mod spdy;
pub mod websocket;

pub use port_forward::ports;
pub use remote::Wanted;
pub use serve::{Process, forward, no_protocol, run};

/// How long a client's side of a connection that has ended is waited for.
const FAREWELL: std::time::Duration = std::time::Duration::from_secs(5);

/// The names and values of a query.
pub fn query(query: Option<&str>) -> Vec<(String, String)> {
    let decode = |text: &str| {
        let spaced = text.replace('+', " ");
        percent_encoding::percent_decode_str(&spaced).decode_utf8_lossy().into_owned()
    };
    let pairs = query.unwrap_or_default().split('&').filter(|pair| !pair.is_empty());
    pairs
        .map(|pair| pair.split_once('=').unwrap_or((pair, "")))
        .map(|(n, v)| (decode(n), decode(v)))
        .collect()
}

/// How queries say yes.
pub fn truth(value: &str) -> bool {
    matches!(value, "1" | "t" | "T" | "true" | "True" | "TRUE")
}
