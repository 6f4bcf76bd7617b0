//! A new client of a crate for every operation. Usage: loop tokio|memcache|async-memcached

mod tally;

use std::future::Future;
use std::sync::Arc;
use tally::{value_of, Tally};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;
use tokio::sync::Semaphore;

type Found = Result<String, Box<dyn std::error::Error + Send + Sync>>;

fn with_memcache(server: &str, key: &str) -> Found {
    let client = memcache::connect(format!("memcache://{server}?timeout=10"))?;
    client.set(key, value_of(key).as_str(), 60)?;
    Ok(client.get(key)?.unwrap_or_default())
}

async fn with_async_memcached(server: String, key: String) -> Found {
    use async_memcached::AsciiProtocol;
    let mut client = async_memcached::Client::new(format!("tcp://{server}")).await?;
    let value = value_of(&key);
    client.set(&key, value.as_str(), None, None).await?;
    let found = client.get(&key).await?.and_then(|value| value.data).unwrap_or_default();
    Ok(String::from_utf8(found)?)
}

async fn with_tokio(server: String, key: String) -> Found {
    let (reader, mut writer) = TcpStream::connect(server).await?.into_split();
    let value = value_of(&key);
    let request = format!("set {key} 0 0 {}\r\n{value}\r\nget {key}\r\n", value.len());
    writer.write_all(request.as_bytes()).await?;
    let mut lines = BufReader::new(reader).lines();
    let mut answer = Vec::new();
    while answer.len() < 4 {
        answer.push(lines.next_line().await?.unwrap_or_default());
    }
    Ok(answer[2].clone())
}

async fn in_tasks<F>(tally: Arc<Tally>, look_up: fn(String, String) -> F)
where
    F: Future<Output = Found> + Send + 'static,
{
    let places = Arc::new(Semaphore::new(tally.concurrency));
    let mut tasks = Vec::new();
    for number in 0..tally.operations {
        let place = places.clone().acquire_owned().await.unwrap();
        let tally = tally.clone();
        tasks.push(tokio::spawn(async move {
            let key = format!("key-{number}");
            tally.count(&key, look_up(tally.server.clone(), key.clone()).await);
            drop(place);
        }));
    }
    for task in tasks {
        task.await.unwrap();
    }
}

fn main() {
    let tally = Arc::new(Tally::new());
    let runtime = || tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    match std::env::args().nth(1).as_deref() {
        Some("memcache") => tally.in_threads(|key| with_memcache(&tally.server, key)),
        Some("async-memcached") => runtime().block_on(in_tasks(tally.clone(), with_async_memcached)),
        Some("tokio") => runtime().block_on(in_tasks(tally.clone(), with_tokio)),
        _ => panic!("no such client"),
    }
    tally.end()
}
