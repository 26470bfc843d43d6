//! What this machine makes of a load without any server: nobody can be faster than that.

use std::io::Write;
use std::net::TcpListener;
use std::time::{Duration, Instant};

use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;
use tokio::task::JoinSet;

use crate::Outcome;
use crate::report::quantile;

/// As large as an event on the wire.
const SIZE: usize = 1_400;

/// The time that 99 of 100 changes take from when they are due, `pace` apart from each other, until one of `watchers`
/// connections has them, when a thread does nothing but write as many bytes to each: no HTTP, no TLS, nothing stored.
pub async fn fan_out(watchers: usize, changes: usize, pace: Duration) -> Outcome<Duration> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let (mut near, mut far) = (Vec::new(), Vec::new());
    for _ in 0..watchers {
        far.push(TcpStream::connect(listener.local_addr()?).await?);
        let stream = listener.accept()?.0;
        stream.set_nodelay(true)?;
        near.push(stream);
    }
    let begun = Instant::now();
    let due = move |change: usize| begun + pace * change as u32;
    let mut tasks = JoinSet::new();
    for mut stream in far {
        tasks.spawn(async move {
            let (mut times, mut read, mut buffer) = (Vec::with_capacity(changes), 0, vec![0; 16 * SIZE]);
            while times.len() < changes
                && let Ok(more @ 1..) = stream.read(&mut buffer).await
            {
                read += more;
                let now = Instant::now();
                times.extend((times.len()..read / SIZE).map(|change| now - due(change)));
            }
            times
        });
    }
    let writer = tokio::task::spawn_blocking(move || {
        for change in 0..changes {
            std::thread::sleep(due(change).saturating_duration_since(Instant::now()));
            near.iter_mut().try_for_each(|stream| stream.write_all(&[0; SIZE]))?;
        }
        std::io::Result::Ok(())
    });
    let mut times: Vec<Duration> = tasks.join_all().await.into_iter().flatten().collect();
    writer.await??;
    Ok(quantile(&mut times, 0.99))
}
