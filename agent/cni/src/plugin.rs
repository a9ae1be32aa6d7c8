//! One run of the plugin: a command in, what is to be printed out. Reading the environment and printing are the binary's.

use std::{
    fs::File,
    io,
    os::{fd::AsFd as _, unix::net::UnixStream},
    time::Duration,
};

use serde_json::Value;

use crate::{
    deletions,
    invocation::{Config, Environment},
    output,
    protocol::{Attachment, AttachmentId, Check, Code, Envelope, Failure, Reply, Request, VERSION},
    wire,
};

/// The agent waits for a pod's tables at most ten seconds and for its addresses as long; this is beyond it.
const PATIENCE: Duration = Duration::from_secs(45);

/// Does what the runtime asks. What is returned is for standard output; `None` prints nothing.
///
/// # Errors
/// See [`Failure`]; to be printed with [`output::failure`].
pub fn run(environment: &Environment, stdin: &[u8]) -> Result<Option<Value>, Failure> {
    match environment.command()? {
        "VERSION" => Ok(Some(output::versions())),
        "ADD" => add(environment, &Config::parse(stdin)?).map(Some),
        "DEL" => del(&Config::parse(stdin)?, &environment.attachment()?).map(|()| None),
        "CHECK" => check(environment, &Config::parse(stdin)?).map(|()| None),
        "GC" => gc(&Config::parse(stdin)?).map(|()| None),
        "STATUS" => status(&Config::parse(stdin)?).map(|()| None),
        other => Err(Failure::new(
            Code::BAD_ENVIRONMENT,
            format!("CNI_COMMAND `{other}` is not known"),
            "ADD, DEL, CHECK, GC, STATUS and VERSION are",
        )),
    }
}

fn add(environment: &Environment, config: &Config) -> Result<Value, Failure> {
    let sandbox = environment.namespace()?;
    let request = Request::Add(Attachment {
        id: environment.attachment()?,
        sandbox: sandbox.to_owned(),
        pod: environment.pod()?,
    });
    match ask(config, request, Some(&namespace(sandbox)?)) {
        Ok(Reply::Added(added)) => Ok(output::result(&config.version, sandbox, &added)),
        Ok(other) => Err(unexpected(&other)),
        Err(Trouble::NoAgent(error)) => Err(no_agent(Code::TRY_AGAIN, &error)),
        Err(Trouble::Failure(failure)) => Err(failure),
    }
}

fn del(config: &Config, id: &AttachmentId) -> Result<(), Failure> {
    match ask(config, Request::Del(id.clone()), None) {
        Ok(Reply::Done) => Ok(()),
        Ok(other) => Err(unexpected(&other)),
        // The pod must be able to go: the next agent ends what is left of it.
        Err(Trouble::NoAgent(_)) => {
            let folder = config.deletions();
            deletions::queue(&folder, id).map_err(|error| {
                Failure::new(
                    Code::IO,
                    format!("leaving a deletion in {}", folder.display()),
                    error.to_string(),
                )
            })
        }
        Err(Trouble::Failure(failure)) => Err(failure),
    }
}

fn check(environment: &Environment, config: &Config) -> Result<(), Failure> {
    let request = Request::Check(Check {
        id: environment.attachment()?,
        addresses: config.previous_addresses()?,
    });
    let namespace = namespace(environment.namespace()?)?;
    done(ask(config, request, Some(&namespace)), Code::TRY_AGAIN)
}

fn gc(config: &Config) -> Result<(), Failure> {
    let valid = config.valid.iter().map(|valid| AttachmentId {
        container: valid.container.clone(),
        interface: valid.interface.clone(),
    });
    done(
        ask(config, Request::Gc(valid.collect()), None),
        Code::TRY_AGAIN,
    )
}

fn status(config: &Config) -> Result<(), Failure> {
    done(ask(config, Request::Status, None), Code::NOT_AVAILABLE)
}

fn done(answer: Result<Reply, Trouble>, without_agent: Code) -> Result<(), Failure> {
    match answer {
        Ok(Reply::Done) => Ok(()),
        Ok(other) => Err(unexpected(&other)),
        Err(Trouble::NoAgent(error)) => Err(no_agent(without_agent, &error)),
        Err(Trouble::Failure(failure)) => Err(failure),
    }
}

/// Why there is no answer.
enum Trouble {
    /// Nobody listens, or whoever did is gone.
    NoAgent(io::Error),
    /// The agent, or something on the way, says no.
    Failure(Failure),
}

fn ask(config: &Config, request: Request, namespace: Option<&File>) -> Result<Reply, Trouble> {
    let mut stream = UnixStream::connect(config.socket()).map_err(Trouble::NoAgent)?;
    let envelope = Envelope {
        version: VERSION,
        request,
    };
    let exchanged = stream
        .set_read_timeout(Some(PATIENCE))
        .and_then(|()| wire::send(&mut stream, &envelope, namespace.map(File::as_fd)))
        .and_then(|()| wire::receive::<Reply>(&mut stream));
    match exchanged {
        Ok((Reply::Failed(failure), _)) => Err(Trouble::Failure(failure)),
        Ok((reply, _)) => Ok(reply),
        Err(error) if error.kind() == io::ErrorKind::InvalidData => Err(Trouble::Failure(
            Failure::new(Code::DECODING, "the agent's answer", error.to_string()),
        )),
        Err(error) => Err(Trouble::NoAgent(error)),
    }
}

fn namespace(path: &str) -> Result<File, Failure> {
    File::open(path).map_err(|error| {
        Failure::new(
            Code::IO,
            format!("opening the network namespace {path}"),
            error.to_string(),
        )
    })
}

fn no_agent(code: Code, error: &io::Error) -> Failure {
    Failure::new(
        code,
        "the node's agent does not answer",
        format!("{error}: it is starting, or its pod on this node does not run"),
    )
}

fn unexpected(reply: &Reply) -> Failure {
    Failure::new(
        Code::DECODING,
        "the agent's answer",
        format!("{reply:?} answers another question"),
    )
}
