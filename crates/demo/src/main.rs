//! `gantry-demo`: a small web program for a first Deployment. Each answer says which pod gave it.
//!
//! It listens on port 8080, or on `PORT`; datagrams there are answered with the pod's name alone. `gantry-demo ask URL`
//! asks another one, at an `http://` or `udp://` address. `POD_NAME`, `POD_NAMESPACE` and `NODE_NAME` come from the downward API.

mod ask;
mod page;
mod request;
mod serve;

use std::net::{Ipv4Addr, TcpListener, UdpSocket};
use std::process::ExitCode;

use nix::sys::signal::{SigSet, Signal};

use page::Identity;

/// A program that cannot start; one clear sentence each.
#[derive(Debug, thiserror::Error)]
enum StartError {
    #[error("PORT is {0:?}, which is no port")]
    Port(String),
    #[error("cannot listen on port {port}: {source}")]
    Listen { port: u16, source: std::io::Error },
    #[error("cannot wait for signals: {0}")]
    Signals(nix::Error),
    #[error("there is only `ask URL`, not {0:?}")]
    Arguments(Vec<String>),
    #[error(transparent)]
    Ask(#[from] ask::AskError),
}

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("gantry-demo: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<(), StartError> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        [] => serve(),
        ["ask", url] => {
            println!("{}", ask::ask(url)?.trim_end());
            Ok(())
        }
        _ => Err(StartError::Arguments(arguments)),
    }
}

fn serve() -> Result<(), StartError> {
    let port = match std::env::var("PORT") {
        Ok(text) => text.parse().map_err(|_| StartError::Port(text))?,
        Err(_) => 8080,
    };
    // The first process of a container gets no signal it does not ask for, not even SIGTERM.
    let ends = SigSet::from_iter([Signal::SIGTERM, Signal::SIGINT]);
    ends.thread_block().map_err(StartError::Signals)?;
    let listener = TcpListener::bind((Ipv4Addr::UNSPECIFIED, port))
        .map_err(|source| StartError::Listen { port, source })?;
    let datagrams = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, port))
        .map_err(|source| StartError::Listen { port, source })?;
    let identity = Identity::from_environment();
    println!("{} {} listens on port {port}", identity.pod, identity.version);
    // Threads that are started from here on have the same signals blocked.
    let name = identity.pod.clone();
    std::thread::spawn(move || serve::datagrams(&datagrams, &name));
    std::thread::spawn(move || serve::forever(&listener, identity));
    let signal = ends.wait().map_err(StartError::Signals)?;
    println!("ends: {signal}");
    Ok(())
}
