//! One thread for each connection, one request on each.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crate::page::{Form, Identity};
use crate::request::{self, Request, RequestError};

/// Who takes longer to ask or to listen is cut off.
const PATIENCE: Duration = Duration::from_secs(5);
/// More connections at a time are refused.
const MOST: usize = 256;
/// What is left of a request is read for the sake of the answer, up to here.
const LEFTOVER: u64 = 1 << 20;

struct Program {
    identity: Identity,
    requests: AtomicU64,
}

/// An answer to be written.
struct Answer {
    status: &'static str,
    form: Form,
    body: String,
}

/// Answers whoever connects.
pub fn forever(listener: &TcpListener, identity: Identity) {
    let program = Arc::new(Program { identity, requests: AtomicU64::new(0) });
    for stream in listener.incoming() {
        let Ok(stream) = stream else { continue };
        // The program is held once for each connection, and once here.
        if Arc::strong_count(&program) > MOST {
            continue;
        }
        let program = program.clone();
        // A machine that has no thread left drops the connection.
        let _ = std::thread::Builder::new().stack_size(64 << 10).spawn(move || program.converse(stream));
    }
}

/// Answers each datagram with a name.
pub fn datagrams(socket: &UdpSocket, name: &str) {
    // What was asked does not matter, and may be cut off.
    let mut question = [0; 1];
    loop {
        // A sender that has gone is told of here; the next one is not to suffer for it.
        if let Ok((_, from)) = socket.recv_from(&mut question) {
            let _ = socket.send_to(name.as_bytes(), from);
        }
    }
}

impl Program {
    fn converse(&self, mut stream: TcpStream) {
        let limits = stream.set_read_timeout(Some(PATIENCE)).and(stream.set_write_timeout(Some(PATIENCE)));
        if limits.is_err() {
            return;
        }
        let (answer, headers_only) = match request::read(&mut stream) {
            Ok(request) => (self.answer(&request), request.method == "HEAD"),
            Err(error) => match refusal(&error) {
                Some(answer) => (answer, false),
                None => return,
            },
        };
        // Whoever has gone does not need the answer.
        let _ = write(&mut stream, &answer, headers_only);
        // Closing with unread bytes would reset the connection, and take the answer with it.
        let _ = stream.shutdown(Shutdown::Write);
        let _ = std::io::copy(&mut (&stream).take(LEFTOVER), &mut std::io::sink());
    }

    fn answer(&self, request: &Request) -> Answer {
        let plain = |status, text: &str| Answer { status, form: Form::Text, body: format!("{text}\n") };
        if !matches!(request.method.as_str(), "GET" | "HEAD") {
            return plain("405 Method Not Allowed", "only GET and HEAD are answered");
        }
        let form = match request.path.as_str() {
            "/" => Form::wanted(&request.accept),
            "/api" => Form::Json,
            "/healthz" => return plain("200 OK", "ok"),
            _ => return plain("404 Not Found", "there are /, /api and /healthz"),
        };
        let count = self.requests.fetch_add(1, Ordering::Relaxed) + 1;
        say(&format!("{} {} (request {count})", request.method, request.path));
        Answer { status: "200 OK", form, body: self.identity.render(form, count) }
    }
}

/// The log may be full, or nobody's any more; the page matters more.
fn say(line: &str) {
    let _ = writeln!(std::io::stdout().lock(), "{line}");
}

fn refusal(error: &RequestError) -> Option<Answer> {
    let status = match error {
        RequestError::NotHttp => "400 Bad Request",
        RequestError::TooLong => "431 Request Header Fields Too Large",
        // Nobody is there to read it.
        RequestError::Ended | RequestError::Read(_) => return None,
    };
    Some(Answer { status, form: Form::Text, body: format!("{error}\n") })
}

fn write(stream: &mut impl Write, answer: &Answer, headers_only: bool) -> std::io::Result<()> {
    let allow = if answer.status.starts_with("405") { "allow: GET, HEAD\r\n" } else { "" };
    let body = if headers_only { "" } else { &answer.body };
    let text = format!(
        "HTTP/1.1 {}\r\ncontent-type: {}\r\ncontent-length: {}\r\ncache-control: no-store\r\n{allow}connection: close\r\n\r\n{body}",
        answer.status,
        answer.form.media_type(),
        answer.body.len(),
    );
    stream.write_all(text.as_bytes())?;
    stream.flush()
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use super::*;

    fn start() -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let identity = Identity { pod: "p".into(), node: "n".into(), namespace: "s".into(), version: "1" };
        std::thread::spawn(move || forever(&listener, identity));
        address
    }

    fn ask(address: SocketAddr, head: &str) -> String {
        let mut stream = TcpStream::connect(address).unwrap();
        stream.write_all(head.as_bytes()).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        answer
    }

    #[test]
    fn answers_and_refuses() {
        let address = start();
        let get = |path: &str, more: &str| ask(address, &format!("GET {path} HTTP/1.1\r\n{more}\r\n"));
        assert!(get("/", "").contains("Hello from p!\n"));
        assert!(get("/", "accept: text/html\r\n").contains("<h1>Hello from p</h1>"));
        assert!(get("/api", "").ends_with("\"requests\":3}\n"));
        assert!(get("/healthz", "").ends_with("\r\n\r\nok\n"));
        assert!(get("/api", "").ends_with("\"requests\":4}\n"), "health checks do not count");
        assert!(get("/x", "").starts_with("HTTP/1.1 404 "));
        let head = ask(address, "HEAD /healthz HTTP/1.1\r\n\r\n");
        assert!(head.contains("content-length: 3\r\n") && head.ends_with("\r\n\r\n"), "{head}");
        let post = ask(address, "POST / HTTP/1.1\r\ncontent-length: 4\r\n\r\nbody");
        assert!(post.starts_with("HTTP/1.1 405 ") && post.contains("allow: GET"), "{post}");
        assert!(ask(address, "what\r\n\r\n").starts_with("HTTP/1.1 400 "));
        assert!(ask(address, &"x".repeat(9 << 10)).starts_with("HTTP/1.1 431 "));
    }

    #[test]
    fn a_connection_that_says_nothing_holds_nobody_up() {
        let address = start();
        let _silent = TcpStream::connect(address).unwrap();
        assert!(ask(address, "GET /healthz HTTP/1.0\r\n\r\n").ends_with("ok\n"));
    }
}
