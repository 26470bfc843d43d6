//! Asking another one of these programs, where there is no other client.

use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, TcpStream, ToSocketAddrs, UdpSocket};
use std::time::Duration;

/// Who takes longer to answer does not answer.
const PATIENCE: Duration = Duration::from_secs(3);
/// No answer of ours is longer.
const LONGEST: u64 = 1 << 20;

/// A question without an answer.
#[derive(Debug, thiserror::Error)]
pub enum AskError {
    #[error("{0:?} is not http://HOST:PORT/PATH or udp://HOST:PORT")]
    Url(String),
    #[error("{url} does not answer: {source}")]
    Silent { url: String, source: io::Error },
}

/// What the program at a URL says: the answer's body, or the first datagram that comes back.
///
/// # Errors
/// When the URL is none of ours, and when no answer comes within three seconds.
pub fn ask(url: &str) -> Result<String, AskError> {
    let silent = |source| AskError::Silent { url: url.to_owned(), source };
    match url.split_once("://") {
        Some(("http", rest)) => {
            let (host, path) = rest.split_once('/').unwrap_or((rest, ""));
            http(host, path).map_err(silent)
        }
        Some(("udp", host)) => udp(host).map_err(silent),
        _ => Err(AskError::Url(url.to_owned())),
    }
}

fn http(host: &str, path: &str) -> io::Result<String> {
    let address = host.to_socket_addrs()?.next().ok_or(io::ErrorKind::AddrNotAvailable)?;
    let mut stream = TcpStream::connect_timeout(&address, PATIENCE)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    write!(stream, "GET /{path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n")?;
    let mut answer = String::new();
    stream.take(LONGEST).read_to_string(&mut answer)?;
    let (_, body) = answer.split_once("\r\n\r\n").ok_or(io::ErrorKind::UnexpectedEof)?;
    Ok(body.to_owned())
}

fn udp(host: &str) -> io::Result<String> {
    let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))?;
    socket.set_read_timeout(Some(PATIENCE))?;
    socket.connect(host)?;
    socket.send(b"?")?;
    let mut answer = [0; 1024];
    let length = socket.recv(&mut answer)?;
    Ok(String::from_utf8_lossy(&answer[..length]).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::thread::spawn;

    #[test]
    fn datagrams_are_answered_with_the_name() {
        let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let url = format!("udp://{}", socket.local_addr().unwrap());
        spawn(move || crate::serve::datagrams(&socket, "pod-1"));
        assert_eq!(ask(&url).unwrap(), "pod-1");
        assert_eq!(ask(&url).unwrap(), "pod-1", "and the next one too");
    }

    #[test]
    fn what_is_no_address_of_ours_is_refused() {
        assert!(matches!(ask("ftp://x"), Err(AskError::Url(_))));
        assert!(matches!(ask("x"), Err(AskError::Url(_))));
    }
}
