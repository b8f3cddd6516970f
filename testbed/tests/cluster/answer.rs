//! The program in the tests' image. `answer ask HOST:PORT` prints what is answered there. Without arguments it
//! listens on port 8080, and when FILE is set it adds a line to that file first and answers the number of lines.

use std::fs::OpenOptions;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};

fn main() -> std::io::Result<()> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    if let [verb, address] = args.as_slice()
        && verb == "ask"
    {
        let mut answer = String::new();
        TcpStream::connect(address.as_str())?.read_to_string(&mut answer)?;
        print!("{answer}");
        return Ok(());
    }
    let answer = match std::env::var("FILE") {
        Ok(file) => {
            writeln!(OpenOptions::new().create(true).append(true).open(&file)?, "started")?;
            std::fs::read_to_string(&file)?.lines().count().to_string()
        }
        Err(_) => std::env::var("HOSTNAME").unwrap_or_default(),
    };
    for stream in TcpListener::bind("0.0.0.0:8080")?.incoming() {
        let _ = stream.and_then(|mut stream| stream.write_all(answer.as_bytes()));
    }
    Ok(())
}
