//! Commands to a supervisor: one line per connection to `control.sock` in the box folder.
//!
//! `stop <seconds>` asks the guest to end and kills it after the grace; `kill` ends it now; whether it has ended, its lock
//! says. `pause`, `resume` and `networks` are answered by one line of JSON, once it is so. The folder is 0700: whoever can open the
//! socket may do all of it.

use std::path::Path;
use std::time::Duration;

use coffer_rim::{Class, Classify as _, Failure};
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::UnixListener;
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, timeout};

use crate::boxes::files;
use crate::lock::BoxLock;
use crate::socket::connect_socket;

/// What to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Command {
    /// End in good order; seconds until the end is forced.
    Stop(u32),
    /// End now.
    Kill,
    /// Let no virtual processor run.
    Pause,
    /// Let them run again.
    Resume,
    /// Look which networks the box is in.
    Networks,
}

/// What somebody wants done, and where to say what came of it.
#[derive(Debug)]
pub struct Asked {
    /// What.
    pub command: Command,
    /// Over the box's socket: whoever ends it so does not want it back by itself, at the next boot neither.
    pub by_hand: bool,
    /// Dropped without a word by what gives no answer.
    pub answer: oneshot::Sender<Result<(), Failure>>,
}

impl Asked {
    /// By a signal: who sends it waits for no answer, and may be a machine that goes down.
    pub fn by_signal(command: Command) -> Self {
        Self { command, by_hand: false, answer: oneshot::channel().0 }
    }

    /// It is to end the box.
    pub fn ends(&self) -> bool {
        matches!(self.command, Command::Kill | Command::Stop(_))
    }
}

impl Command {
    fn parse(line: &str) -> Option<Self> {
        match line.trim().split_once(' ') {
            Some(("stop", seconds)) => seconds.parse().ok().map(Self::Stop),
            Some(_) => None,
            None => {
                let all = [Self::Kill, Self::Pause, Self::Resume, Self::Networks];
                all.into_iter().find(|command| command.line().trim() == line.trim())
            }
        }
    }

    fn line(self) -> String {
        match self {
            Self::Stop(seconds) => format!("stop {seconds}\n"),
            Self::Kill => "kill\n".into(),
            Self::Pause => "pause\n".into(),
            Self::Resume => "resume\n".into(),
            Self::Networks => "networks\n".into(),
        }
    }
}

/// Takes commands until nobody listens any more.
pub async fn serve(listener: UnixListener, commands: mpsc::Sender<Asked>) {
    while !commands.is_closed() {
        let Ok((line, _)) = listener.accept().await else {
            // Out of descriptors, say: the box must stay within reach.
            tokio::time::sleep(Duration::from_millis(100)).await;
            continue;
        };
        let commands = commands.clone();
        tokio::spawn(async move {
            let (reader, mut writer) = line.into_split();
            let mut text = String::new();
            if BufReader::new(reader.take(64)).read_line(&mut text).await.is_ok()
                && let Some(command) = Command::parse(&text)
            {
                let (answer, answered) = oneshot::channel();
                let _ = commands.send(Asked { command, by_hand: true, answer }).await;
                if let Ok(answer) = answered.await
                    && let Ok(mut json) = serde_json::to_vec(&answer)
                {
                    json.push(b'\n');
                    let _ = writer.write_all(&json).await;
                }
            }
        });
    }
}

/// Sends a command to the supervisor of a box.
///
/// # Errors
/// If no supervisor listens.
pub async fn send(folder: &Path, command: Command) -> std::io::Result<()> {
    let mut line = connect_socket(folder, files::CONTROL)?;
    line.write_all(command.line().as_bytes()).await?;
    line.shutdown().await
}

/// Sends a command to the supervisor of a box and gives its answer.
///
/// # Errors
/// What the supervisor says; class `config` if none listens or it has no answer, `internal` if there is none in time.
pub async fn ask(folder: &Path, command: Command) -> Result<(), Failure> {
    let mut line = connect_socket(folder, files::CONTROL).class_while(Class::Config, NOT_UP)?;
    let answer = async {
        line.write_all(command.line().as_bytes()).await?;
        let mut text = String::new();
        BufReader::new(line.take(ANSWER)).read_line(&mut text).await?;
        std::io::Result::Ok(text)
    };
    let Ok(answer) = timeout(PATIENCE, answer).await else {
        let late = format!("the box's supervisor does not answer within {} s", PATIENCE.as_secs());
        return Err(Failure::new(Class::Internal, late));
    };
    let answer = answer.class_while(Class::Config, NOT_UP)?;
    serde_json::from_str(&answer).unwrap_or_else(|_| Err(Failure::new(Class::Config, NOT_UP)))
}

/// Tells the supervisor of a box, if it has one, that the box's networks changed; once this returns, it does what they say.
///
/// # Errors
/// What the supervisor says; class `internal` if it does not answer in time.
pub async fn tell_networks(folder: &Path) -> Result<(), Failure> {
    let late = Instant::now() + PATIENCE;
    while BoxLock::is_held(folder) {
        match ask(folder, Command::Networks).await {
            // Before it listens, and once it has stopped, there is a lock and no answer: it looks when it starts.
            Err(error) if error.message.contains(NOT_UP) && Instant::now() < late => {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
            told => return told,
        }
    }
    Ok(())
}

/// Of a supervisor that is only just there, or about to go.
const NOT_UP: &str = "the box is only just being started, or about to end";
/// For what it answers.
const ANSWER: u64 = 64 * 1024;
/// More than a monitor takes to pause.
const PATIENCE: Duration = Duration::from_secs(20);

/// Ends a box and waits until it has ended. One that is just being started or already ending is waited for as well; one
/// that does not run has ended.
///
/// # Errors
/// Class `internal` if its supervisor does not bring it about in time.
pub async fn end(folder: &Path, command: Command) -> Result<(), Failure> {
    let patience = match command {
        Command::Stop(grace) => Duration::from_secs(u64::from(grace) + 30),
        Command::Kill | Command::Pause | Command::Resume | Command::Networks => Duration::from_secs(30),
    };
    let late = Instant::now() + patience;
    let mut sent = false;
    while BoxLock::is_held(folder) {
        // Before the supervisor listens, and once it has stopped listening, there is a lock and no socket.
        sent = sent || send(folder, command).await.is_ok();
        if Instant::now() >= late {
            let why = if sent { "did not end" } else { "takes no commands" };
            return Err(Failure::new(Class::Internal, format!("the box {why} within {} s", patience.as_secs())));
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn commands_arrive_and_noise_does_not() {
        let dir = tempfile::tempdir().unwrap();
        let (commands, mut received) = mpsc::channel(4);
        tokio::spawn(serve(crate::socket::bind_socket(dir.path(), files::CONTROL).unwrap(), commands));
        for line in ["", "stop", "stop x\n", "stop -1\n", "die\n"] {
            assert_eq!(Command::parse(line), None, "{line}");
        }
        send(dir.path(), Command::Stop(7)).await.unwrap();
        assert_eq!(received.recv().await.unwrap().command, Command::Stop(7));
        send(dir.path(), Command::Kill).await.unwrap();
        assert_eq!(received.recv().await.unwrap().command, Command::Kill);
    }

    #[tokio::test]
    async fn a_pause_is_answered() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(ask(dir.path(), Command::Pause).await.unwrap_err().class, Class::Config);
        let (commands, mut received) = mpsc::channel::<Asked>(4);
        tokio::spawn(serve(crate::socket::bind_socket(dir.path(), files::CONTROL).unwrap(), commands));
        tokio::spawn(async move {
            let refused = Failure::new(Class::Platform, "no").hint("never");
            for answer in [Some(Ok(())), Some(Err(refused)), None] {
                let asked = received.recv().await.unwrap();
                assert_eq!(asked.command, Command::Resume);
                if let Some(answer) = answer {
                    asked.answer.send(answer).unwrap();
                }
            }
        });
        let ask = || ask(dir.path(), Command::Resume);
        ask().await.unwrap();
        let refused = ask().await.unwrap_err();
        assert_eq!((refused.class, refused.hint.as_deref()), (Class::Platform, Some("never")));
        assert!(ask().await.unwrap_err().message.contains("about to end"));
    }

    #[tokio::test]
    async fn whoever_changes_networks_waits_for_a_supervisor_that_does_not_listen_yet() {
        let dir = tempfile::tempdir().unwrap();
        tell_networks(dir.path()).await.unwrap();
        let lock = BoxLock::take(dir.path()).unwrap();
        let folder = dir.path().to_path_buf();
        let telling = tokio::spawn(async move { tell_networks(&folder).await });
        let (commands, mut received) = mpsc::channel(4);
        tokio::spawn(serve(crate::socket::bind_socket(dir.path(), files::CONTROL).unwrap(), commands));
        // Without a word: it has nothing yet that could be told. Then it has.
        let asked = received.recv().await.unwrap();
        assert_eq!(asked.command, Command::Networks);
        drop(asked);
        received.recv().await.unwrap().answer.send(Ok(())).unwrap();
        telling.await.unwrap().unwrap();
        drop(lock);
    }

    #[tokio::test]
    async fn a_stop_waits_for_a_supervisor_that_does_not_listen_yet_or_no_longer() {
        let dir = tempfile::tempdir().unwrap();
        end(dir.path(), Command::Stop(1)).await.unwrap();

        let lock = BoxLock::take(dir.path()).unwrap();
        let folder = dir.path().to_path_buf();
        let starting = tokio::spawn(async move { end(&folder, Command::Stop(1)).await });
        tokio::time::sleep(Duration::from_millis(30)).await;
        let (commands, mut received) = mpsc::channel(4);
        tokio::spawn(serve(crate::socket::bind_socket(dir.path(), files::CONTROL).unwrap(), commands));
        assert_eq!(received.recv().await.unwrap().command, Command::Stop(1));
        std::fs::remove_file(dir.path().join(files::CONTROL)).unwrap();
        let folder = dir.path().to_path_buf();
        let ending = tokio::spawn(async move { end(&folder, Command::Stop(1)).await });
        tokio::time::sleep(Duration::from_millis(30)).await;
        assert!(received.try_recv().is_err(), "asked once");
        drop(lock);
        starting.await.unwrap().unwrap();
        ending.await.unwrap().unwrap();
    }
}
