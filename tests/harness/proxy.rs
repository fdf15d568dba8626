//! A proxy in front of an S3 server that behaves badly on demand: slow, silent, failing, or deaf to conditions.

use std::{
    collections::BTreeMap,
    io::{BufRead, BufReader, Read, Write},
    net::{Shutdown, TcpListener, TcpStream},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

/// What the proxy does to requests. It can be changed while connections are open.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Fault {
    /// Passes everything on.
    #[default]
    None,
    /// Waits before each request is passed on.
    Slow(Duration),
    /// Takes requests and never answers.
    Silent,
    /// Closes connections instead of answering, as when nobody is there.
    Gone,
    /// Answers this error to every `every`-th request instead of passing it on (1: to all).
    Fails {
        /// HTTP status.
        status: u16,
        /// S3 error code.
        code: &'static str,
        /// Which requests.
        every: u64,
    },
    /// Takes If-Match and If-None-Match away, as a server would that does not know them. Signed requests then fail.
    Unconditional,
}

struct Shared {
    fault: Mutex<Fault>,
    requests: Mutex<BTreeMap<&'static str, u64>>,
    sent: AtomicU64,
    received: AtomicU64,
    upstream: u16,
}

/// A running proxy on a loopback port of its own.
pub struct Proxy {
    shared: Arc<Shared>,
    port: u16,
}

impl Proxy {
    /// Starts a proxy in front of the server at `upstream`, a loopback port. It lives as long as the process.
    pub fn start(upstream: u16) -> Self {
        Self::start_at("127.0.0.1", upstream)
    }

    /// As [`Self::start`], on another address of this machine.
    pub fn start_at(ip: &str, upstream: u16) -> Self {
        let listener = TcpListener::bind((ip, 0)).expect("bind a proxy");
        let port = listener.local_addr().expect("bound").port();
        let shared = Arc::new(Shared {
            fault: Mutex::default(),
            requests: Mutex::default(),
            sent: AtomicU64::new(0),
            received: AtomicU64::new(0),
            upstream,
        });
        let state = shared.clone();
        std::thread::spawn(move || {
            for client in listener.incoming().flatten() {
                let state = state.clone();
                // A connection that breaks is what its client has to deal with.
                std::thread::spawn(move || serve(&state, client).is_ok());
            }
        });
        Self { shared, port }
    }

    /// The port it listens on.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// `http://127.0.0.1:PORT`.
    pub fn endpoint(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// Requests that came so far, answered or not.
    pub fn requests(&self) -> u64 {
        self.requests_by_method().values().sum()
    }

    /// The same by HTTP method, but as S3's price list sorts them: a GET that lists is a `LIST`, a POST that deletes is a
    /// `DELETE`.
    pub fn requests_by_method(&self) -> BTreeMap<&'static str, u64> {
        self.shared.requests.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Bytes of bodies that clients sent and received so far.
    pub fn bytes(&self) -> (u64, u64) {
        (self.shared.sent.load(Relaxed), self.shared.received.load(Relaxed))
    }

    /// Behaves like this from the next request on.
    pub fn set(&self, fault: Fault) {
        *self.shared.fault.lock().unwrap_or_else(PoisonError::into_inner) = fault;
    }
}

/// One request or answer: head lines and body.
struct Message {
    head: Vec<String>,
    body: Vec<u8>,
}

impl Message {
    /// Reads a message; `None` at the end of the connection. `bodiless`: an answer to HEAD, whatever its length says.
    fn read(from: &mut impl BufRead, bodiless: bool) -> std::io::Result<Option<Self>> {
        let mut head = Vec::new();
        loop {
            let mut line = String::new();
            if from.read_line(&mut line)? == 0 {
                return Ok(None);
            }
            let line = line.trim_end_matches(['\r', '\n']).to_owned();
            if line.is_empty() {
                break;
            }
            head.push(line);
        }
        let mut message = Self { head, body: Vec::new() };
        if bodiless {
            return Ok(Some(message));
        }
        if message.field("transfer-encoding").is_some() {
            message.read_chunks(from)?;
        } else if let Some(len) = message.field("content-length") {
            let len = len.parse().map_err(std::io::Error::other)?;
            message.body.resize(len, 0);
            from.read_exact(&mut message.body)?;
        }
        Ok(Some(message))
    }

    /// Reads a chunked body; it is passed on whole.
    fn read_chunks(&mut self, from: &mut impl BufRead) -> std::io::Result<()> {
        loop {
            let mut line = String::new();
            from.read_line(&mut line)?;
            let len = usize::from_str_radix(line.trim(), 16).map_err(std::io::Error::other)?;
            let start = self.body.len();
            self.body.resize(start + len, 0);
            from.read_exact(&mut self.body[start..])?;
            from.read_line(&mut line)?;
            if len == 0 {
                break;
            }
        }
        self.head.retain(|line| !line.to_ascii_lowercase().starts_with("transfer-encoding:"));
        self.head.push(format!("Content-Length: {}", self.body.len()));
        Ok(())
    }

    fn field(&self, name: &str) -> Option<&str> {
        let named = |line: &&String| line.split(':').next().is_some_and(|field| field.eq_ignore_ascii_case(name));
        self.head.iter().find(named).and_then(|line| line.split_once(':')).map(|(_, value)| value.trim())
    }

    /// What a request counts as.
    fn method(&self) -> &'static str {
        let line = self.head.first().map_or("", String::as_str);
        let (method, target) = line.split_once(' ').unwrap_or_default();
        let query = target.split(' ').next().and_then(|target| target.split_once('?')).map_or("", |(_, query)| query);
        let asks = |name| query.split('&').any(|field| field.split('=').next() == Some(name));
        match method {
            "GET" if asks("list-type") || asks("uploads") => "LIST",
            "POST" if asks("delete") => "DELETE",
            "GET" => "GET",
            "HEAD" => "HEAD",
            "PUT" => "PUT",
            "POST" => "POST",
            "DELETE" => "DELETE",
            _ => "other",
        }
    }

    fn write(&self, to: &mut impl Write) -> std::io::Result<()> {
        let mut bytes = (self.head.join("\r\n") + "\r\n\r\n").into_bytes();
        bytes.extend_from_slice(&self.body);
        to.write_all(&bytes)
    }

    /// An answer of S3's kind.
    fn error(status: u16, code: &str, bodiless: bool) -> Self {
        let body =
            format!("<?xml version=\"1.0\"?><Error><Code>{code}</Code><Message>made by the test</Message></Error>");
        let head = [
            format!("HTTP/1.1 {status} {code}"),
            "Content-Type: application/xml".to_owned(),
            format!("Content-Length: {}", body.len()),
        ];
        Self { head: head.into(), body: if bodiless { Vec::new() } else { body.into_bytes() } }
    }
}

fn serve(shared: &Shared, mut client: TcpStream) -> std::io::Result<()> {
    client.set_nodelay(true)?;
    let mut server = TcpStream::connect(("127.0.0.1", shared.upstream))?;
    server.set_nodelay(true)?;
    let mut requests = BufReader::new(client.try_clone()?);
    let mut answers = BufReader::new(server.try_clone()?);
    while let Some(mut request) = Message::read(&mut requests, false)? {
        let bodiless = request.head.first().is_some_and(|line| line.starts_with("HEAD "));
        let number = {
            let mut requests = shared.requests.lock().unwrap_or_else(PoisonError::into_inner);
            *requests.entry(request.method()).or_default() += 1;
            requests.values().sum::<u64>()
        };
        shared.sent.fetch_add(request.body.len() as u64, Relaxed);
        let fault = shared.fault.lock().unwrap_or_else(PoisonError::into_inner).clone();
        match fault {
            Fault::Fails { status, code, every } if number % every == 0 => {
                Message::error(status, code, bodiless).write(&mut client)?;
                continue;
            }
            // The client goes away when it has waited long enough.
            Fault::Silent => return client.read_to_end(&mut Vec::new()).map(|_| ()),
            Fault::Gone => break,
            Fault::Slow(wait) => std::thread::sleep(wait),
            Fault::Unconditional => request.head.retain(|line| {
                let line = line.to_ascii_lowercase();
                !line.starts_with("if-match:") && !line.starts_with("if-none-match:")
            }),
            Fault::None | Fault::Fails { .. } => {}
        }
        request.write(&mut server)?;
        let Some(answer) = Message::read(&mut answers, bodiless)? else { break };
        shared.received.fetch_add(answer.body.len() as u64, Relaxed);
        answer.write(&mut client)?;
    }
    // Either side may have closed already.
    let _ = client.shutdown(Shutdown::Both);
    Ok(())
}
