//! std::net::TcpStream for every operation, from 8 threads. Usage: std_loop plain|try-clone
//! With try_clone() one fd reads and the other writes, as most programs do it.

#[path = "../tally.rs"]
mod tally;

use std::io::{BufRead, BufReader, Error, Write};
use std::net::TcpStream;
use tally::{value_of, Tally};

fn dialogue(mut writer: impl Write, reader: impl BufRead, key: &str) -> Result<String, Error> {
    let value = value_of(key);
    write!(writer, "set {key} 0 0 {}\r\n{value}\r\nget {key}\r\n", value.len())?;
    let answer: Vec<String> = reader.lines().take(4).collect::<Result<_, _>>()?;
    Ok(answer.get(2).cloned().unwrap_or_default())
}

fn main() {
    let tally = Tally::new();
    let cloned = std::env::args().nth(1).as_deref() == Some("try-clone");
    tally.in_threads(|key| {
        let stream = TcpStream::connect(&tally.server)?;
        if cloned {
            let reader = BufReader::new(stream.try_clone()?);
            dialogue(stream, reader, key)
        } else {
            dialogue(&stream, BufReader::new(&stream), key)
        }
    });
    tally.end()
}
