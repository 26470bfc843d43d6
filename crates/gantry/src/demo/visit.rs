//! Fetching the demo's page until every pod has answered.

use std::collections::{BTreeMap, HashSet};
use std::net::Ipv4Addr;
use std::time::Duration;

use client::kube::Client;
use serde::Deserialize;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::{Instant, sleep, timeout};

use super::{DemoError, NODE_PORT, rollout};

/// The rules of a new Service are in the kernel long before.
const PATIENCE: Duration = Duration::from_secs(10);
/// One answer.
const ONE: Duration = Duration::from_secs(2);
/// Between attempts when nothing answers: a port that becomes open tells nobody.
const PAUSE: Duration = Duration::from_millis(20);
/// No answer of ours is longer.
const LONGEST: u64 = 64 << 10;

/// What a pod says of itself.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub(super) struct Answer {
    pub(super) pod: String,
    pub(super) node: String,
    pub(super) version: String,
    pub(super) requests: u64,
}

/// A fetch that gave nothing.
#[derive(Debug, thiserror::Error)]
enum FetchError {
    #[error("no answer within {} s", ONE.as_secs())]
    Late,
    #[error("{0}")]
    Connection(#[from] std::io::Error),
    #[error("what answers is not the demo")]
    Stranger,
}

/// Asks until each of the pods has answered, on a new connection each time. Two are enough when time is up: which
/// pod is asked is left to chance.
pub(super) async fn all(client: &Client, node: Ipv4Addr, pods: &[String]) -> Result<Vec<Answer>, DemoError> {
    let wanted: HashSet<&str> = pods.iter().map(String::as_str).collect();
    let mut answers = BTreeMap::new();
    let mut last = "none was made".to_owned();
    let deadline = Instant::now() + PATIENCE;
    while answers.len() < wanted.len() && Instant::now() < deadline {
        match fetch(node).await {
            // Pods of an earlier version may answer until the rules have changed.
            Ok(answer) if wanted.contains(answer.pod.as_str()) => {
                last = format!("answered by {}", answer.pod);
                answers.insert(answer.pod.clone(), answer);
            }
            Ok(answer) => last = format!("answered by {}, which is leaving", answer.pod),
            Err(error) => {
                last = error.to_string();
                sleep(PAUSE).await;
            }
        }
    }
    if answers.len() < wanted.len().min(2) {
        let url = format!("http://{node}:{NODE_PORT}/");
        let why = rollout::reasons(client).await?;
        return Err(DemoError::FewAnswers { url, answered: answers.len(), last, why });
    }
    Ok(answers.into_values().collect())
}

async fn fetch(node: Ipv4Addr) -> Result<Answer, FetchError> {
    let text = timeout(ONE, converse(node)).await.map_err(|_| FetchError::Late)??;
    read(&text).ok_or(FetchError::Stranger)
}

async fn converse(node: Ipv4Addr) -> std::io::Result<Vec<u8>> {
    let mut stream = TcpStream::connect((node, NODE_PORT)).await?;
    let request = format!("GET / HTTP/1.0\r\nhost: {node}\r\naccept: application/json\r\n\r\n");
    stream.write_all(request.as_bytes()).await?;
    let mut answer = Vec::new();
    stream.take(LONGEST).read_to_end(&mut answer).await?;
    Ok(answer)
}

fn read(answer: &[u8]) -> Option<Answer> {
    let end = answer.windows(4).position(|w| w == b"\r\n\r\n")?;
    let status = answer.split(|b| *b == b' ').nth(1)?;
    (status == b"200").then(|| serde_json::from_slice(&answer[end + 4..]).ok())?
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_the_demos_answers_only() {
        let body = r#"{"pod":"p","node":"n","namespace":"s","version":"1","requests":7}"#;
        let answer = Answer { pod: "p".into(), node: "n".into(), version: "1".into(), requests: 7 };
        assert_eq!(read(format!("HTTP/1.1 200 OK\r\na: b\r\n\r\n{body}").as_bytes()), Some(answer));
        assert_eq!(read(format!("HTTP/1.1 500 Oh\r\n\r\n{body}").as_bytes()), None);
        for other in ["", "HTTP/1.1 200 OK\r\n\r\n<html>", "HTTP/1.1 200 OK\r\n"] {
            assert_eq!(read(other.as_bytes()), None, "{other}");
        }
    }
}
