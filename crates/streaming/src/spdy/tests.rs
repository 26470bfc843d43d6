use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};

use super::*;

/// A client's side, frame by frame.
struct Client {
    io: DuplexStream,
    encoder: Encoder,
}

impl Client {
    fn connect() -> (Self, Streams) {
        let (io, server) = tokio::io::duplex(64 * 1024);
        (Self { io, encoder: Encoder::new() }, serve(server))
    }

    async fn open(&mut self, id: u32, headers: &[(&str, &str)]) {
        let block = self.encoder.encode(headers);
        self.io.write_all(&frame::syn_stream(id, &block)).await.unwrap();
    }

    async fn data(&mut self, id: u32, data: &[u8], last: bool) {
        self.io.write_all(&frame::data_head(id, data.len(), last)).await.unwrap();
        self.io.write_all(data).await.unwrap();
    }

    async fn next(&mut self) -> (Head, Vec<u8>) {
        let mut head = [0; 8];
        self.io.read_exact(&mut head).await.unwrap();
        let head = Head::parse(head).unwrap();
        let (Head::Data { len, .. } | Head::Control { len, .. }) = head;
        let mut payload = vec![0; len as usize];
        self.io.read_exact(&mut payload).await.unwrap();
        (head, payload)
    }
}

#[tokio::test]
async fn streams_carry_data_both_ways_and_end_one_by_one() {
    let (mut client, mut streams) = Client::connect();
    client.open(1, &[("streamtype", "data"), ("port", "80")]).await;
    let opened = streams.next().await.unwrap();
    assert_eq!((opened.header("streamType"), opened.header("port")), (Some("data"), Some("80")));
    let (Head::Control { kind: 2, .. }, reply) = client.next().await else { panic!("no reply") };
    assert_eq!(reply[..4], 1_u32.to_be_bytes());

    let mut channel = opened.channel;
    client.data(1, b"ping", false).await;
    assert_eq!(channel.incoming.next().await.unwrap(), "ping");
    channel.outgoing.send("pong").await.unwrap();
    assert_eq!(client.next().await, (Head::Data { id: 1, last: false, len: 4 }, b"pong".to_vec()));

    client.data(1, b"bye", true).await;
    assert_eq!(channel.incoming.next().await.unwrap(), "bye");
    assert_eq!(channel.incoming.next().await, None);
    channel.outgoing.end().await;
    assert_eq!(client.next().await, (Head::Data { id: 1, last: true, len: 0 }, vec![]));
}

#[tokio::test]
async fn the_connection_ends_with_its_last_channel() {
    let (mut client, mut streams) = Client::connect();
    client.open(1, &[("streamtype", "error")]).await;
    let opened = streams.next().await.unwrap();
    drop(streams);
    client.next().await;
    drop(opened);
    assert_eq!(client.io.read(&mut [0; 8]).await.unwrap(), 0);
}

#[tokio::test]
async fn a_client_that_goes_ends_its_channels() {
    let (mut client, mut streams) = Client::connect();
    client.open(1, &[]).await;
    let mut opened = streams.next().await.unwrap();
    drop(client);
    assert_eq!(opened.channel.incoming.next().await, None);
    streams.lost.wait().await;
}

#[tokio::test]
async fn pings_are_answered_and_rubbish_ends_the_connection() {
    let (mut client, mut streams) = Client::connect();
    client.io.write_all(&frame::ping(9)).await.unwrap();
    assert_eq!(client.next().await.1, 9_u32.to_be_bytes());
    client.io.write_all(&[0x80, 9, 0, 1, 0, 0, 0, 0]).await.unwrap();
    assert!(streams.next().await.is_none());
}
