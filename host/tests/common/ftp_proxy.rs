//! Stands between a client and the control connections of an FTP server, and makes what goes wrong on
//! the way go wrong at a chosen point. Data connections do not pass here.

use std::{
    net::SocketAddr,
    sync::{Arc, Mutex},
};

use tokio::{
    io::{AsyncBufReadExt, AsyncWriteExt, BufReader},
    net::{TcpListener, TcpStream},
    sync::watch,
    task::JoinHandle,
};

/// What goes wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Mishap {
    /// The next answer to this command gets lost, and the connection with it, after the server carried
    /// the command out.
    LosesAnswer(&'static str),
    /// The next answer to this command never comes.
    HoldsAnswer(&'static str),
    /// Every such command is answered with this line, and not passed on.
    Answers(&'static str, &'static str),
    /// Every answer to PASV names another host.
    ForgesPasv,
    /// Connections are taken, and nothing is ever answered, not even a greeting.
    Silent,
}

struct Shared {
    upstream: Mutex<SocketAddr>,
    mishaps: Mutex<Vec<Mishap>>,
    commands: Mutex<Vec<String>>,
    open: watch::Sender<usize>,
    most: Mutex<usize>,
    cut: watch::Sender<u64>,
}

/// A proxy; it ends with this value.
pub struct FtpProxy {
    pub address: SocketAddr,
    shared: Arc<Shared>,
    task: JoinHandle<()>,
}

impl FtpProxy {
    pub async fn start(upstream: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let shared = Arc::new(Shared {
            upstream: Mutex::new(upstream),
            mishaps: Mutex::default(),
            commands: Mutex::default(),
            open: watch::Sender::new(0),
            most: Mutex::default(),
            cut: watch::Sender::new(0),
        });
        let accepting = shared.clone();
        let task = tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let shared = accepting.clone();
                shared.open.send_modify(|open| *open += 1);
                let now = *shared.open.borrow();
                let mut most = shared.most.lock().unwrap();
                *most = now.max(*most);
                drop(most);
                tokio::spawn(async move {
                    let mut cut = shared.cut.subscribe();
                    tokio::select! {
                        _ = pass(client, &shared) => {}
                        _ = cut.changed() => {}
                    }
                    shared.open.send_modify(|open| *open -= 1);
                });
            }
        });
        Self { address, shared, task }
    }

    pub fn add(&self, mishap: Mishap) {
        self.shared.mishaps.lock().unwrap().push(mishap);
    }

    /// Nothing goes wrong any more.
    pub fn mend(&self) {
        self.shared.mishaps.lock().unwrap().clear();
    }

    /// Closes every connection.
    pub fn cut(&self) {
        self.shared.cut.send_modify(|count| *count += 1);
    }

    /// How often a command with this verb was sent.
    pub fn count(&self, verb: &str) -> usize {
        self.shared.commands.lock().unwrap().iter().filter(|command| *command == verb).count()
    }

    /// How many connections there were at once, at most.
    pub fn most(&self) -> usize {
        *self.shared.most.lock().unwrap()
    }

    /// Waits until there are this many connections.
    pub async fn until_open(&self, count: usize) {
        self.shared.open.subscribe().wait_for(|open| *open == count).await.unwrap();
    }
}

impl Drop for FtpProxy {
    fn drop(&mut self) {
        self.task.abort();
        self.cut();
    }
}

impl Shared {
    /// Takes a mishap that happens once.
    fn take(&self, mishap: &Mishap) -> bool {
        let mut mishaps = self.mishaps.lock().unwrap();
        mishaps.iter().position(|there| there == mishap).map(|at| mishaps.remove(at)).is_some()
    }

    fn has(&self, mishap: &Mishap) -> bool {
        self.mishaps.lock().unwrap().contains(mishap)
    }

    fn answer_of(&self, verb: &str) -> Option<&'static str> {
        self.mishaps.lock().unwrap().iter().find_map(|mishap| match mishap {
            Mishap::Answers(of, answer) if *of == verb => Some(*answer),
            _ => None,
        })
    }
}

const ONCE: [&str; 8] = ["RNFR", "RNTO", "STOR", "RETR", "MKD", "NLST", "SIZE", "DELE"];

/// Passes commands and answers until one side ends; gives `None` then.
async fn pass(client: TcpStream, shared: &Shared) -> Option<()> {
    let upstream = *shared.upstream.lock().unwrap();
    let server = TcpStream::connect(upstream).await.ok()?;
    let (from_client, mut to_client) = client.into_split();
    let (from_server, mut to_server) = server.into_split();
    let mut commands = BufReader::new(from_client).lines();
    let mut answers = BufReader::new(from_server).lines();
    let (mut lose, mut hold) = (false, false);
    loop {
        tokio::select! {
            command = commands.next_line() => {
                let command = command.ok()??;
                let verb = command.split(' ').next().unwrap_or_default().to_owned();
                shared.commands.lock().unwrap().push(verb.clone());
                if shared.has(&Mishap::Silent) {
                    continue;
                }
                if let Some(answer) = shared.answer_of(&verb) {
                    to_client.write_all(format!("{answer}\r\n").as_bytes()).await.ok()?;
                    continue;
                }
                if let Some(verb) = ONCE.into_iter().find(|known| *known == verb) {
                    lose |= shared.take(&Mishap::LosesAnswer(verb));
                    hold |= shared.take(&Mishap::HoldsAnswer(verb));
                }
                to_server.write_all(format!("{command}\r\n").as_bytes()).await.ok()?;
            }
            answer = answers.next_line() => {
                let mut answer = answer.ok()??;
                if lose {
                    return None;
                }
                if hold || shared.has(&Mishap::Silent) {
                    continue;
                }
                if shared.has(&Mishap::ForgesPasv) && answer.starts_with("227") {
                    answer = answer.replace("(127,0,0,1,", "(192,0,2,1,");
                    assert!(answer.contains("192,0,2,1"), "{answer}");
                }
                to_client.write_all(format!("{answer}\r\n").as_bytes()).await.ok()?;
            }
        }
    }
}
