//! A running cluster as a test uses it: up, commands on its machines, services stopped, killed and started, down.

mod bridge;
mod down;
mod up;

use std::{
    fs,
    ops::Deref,
    path::{Path, PathBuf},
    process::{Command, ExitStatus},
    time::Duration,
};

use ipnet::IpNet;

use crate::{
    build,
    cache::Cache,
    command,
    control::Want,
    error::{Error, Result},
    kubectl::Kubectl,
    machine::{self, Running},
    net, node,
    options::Options,
    plan::{Machine, Name},
};

/// A cluster that is up.
#[derive(Debug)]
pub struct Cluster {
    options: Options,
    folder: PathBuf,
    kubectl: Kubectl,
    control_plane: Running,
    nodes: Vec<Running>,
}

/// A cluster that is removed when this is dropped, also when a test panics.
#[derive(Debug)]
pub struct Owned(Cluster);

impl Deref for Owned {
    type Target = Cluster;

    fn deref(&self) -> &Cluster {
        &self.0
    }
}

impl Drop for Owned {
    fn drop(&mut self) {
        if let Err(error) = Cluster::down(&self.0.options.name) {
            eprintln!("error: {error}");
        }
    }
}

impl Cluster {
    /// Builds Kubernetes, containerd and everything else, except what is built already. Minutes from nothing, 20 or so on two
    /// cores. `say` is told of every step with its time.
    ///
    /// # Errors
    ///
    /// If a program that builds is missing, a module can't be had, or a build fails.
    pub fn build(say: &mut dyn FnMut(&str)) -> Result<()> {
        build::everything(&Cache::find()?, say)
    }

    /// Starts a cluster. `say` is told of every step with its time. Leftovers of a killed run of the same name are removed;
    /// if the start fails, so is what was started.
    ///
    /// # Errors
    ///
    /// If one of this name is up, something isn't built, or a step fails.
    pub fn up(options: Options, say: &mut dyn FnMut(&str)) -> Result<Self> {
        up::up(options, say)
    }

    /// As [`Self::up`]; the cluster is removed when the result is dropped.
    ///
    /// # Errors
    ///
    /// As of [`Self::up`].
    pub fn up_owned(options: Options, say: &mut dyn FnMut(&str)) -> Result<Owned> {
        Self::up(options, say).map(Owned)
    }

    /// Removes a cluster or whatever a killed run left of it: processes, namespaces, control groups, files.
    ///
    /// # Errors
    ///
    /// If something could not be removed; the error says what.
    pub fn down(name: &Name) -> Result<()> {
        down::down(name)
    }

    /// A cluster that was started earlier, perhaps by another process.
    ///
    /// # Errors
    ///
    /// If it isn't up, or half of it is gone.
    pub fn open(name: &Name) -> Result<Self> {
        let cache = Cache::find()?;
        let folder = cache.cluster(name);
        let not_up = || Error::NotUp {
            name: name.to_string(),
        };
        let path = folder.join("options.json");
        let Ok(text) = fs::read(&path) else {
            return Err(not_up());
        };
        let options: Options =
            serde_json::from_slice(&text).map_err(|error| Error::Unreadable {
                what: path.display().to_string(),
                why: error.to_string(),
            })?;
        let open = |machine: Machine| {
            machine::open(machine, &folder.join(machine.to_string()))?.ok_or_else(not_up)
        };
        let control_plane = open(Machine::ControlPlane)?;
        let nodes = (1..=options.nodes)
            .map(|number| open(Machine::Node(number)))
            .collect::<Result<_>>()?;
        Ok(Self {
            kubectl: kubectl(&cache, name, &folder),
            options,
            folder,
            control_plane,
            nodes,
        })
    }

    /// What it was started with.
    #[must_use]
    pub fn options(&self) -> &Options {
        &self.options
    }

    /// The folder with its state and logs: `<machine>/control/log`.
    #[must_use]
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// The administrator's kubeconfig. The API server is reached only from the cluster's namespaces.
    #[must_use]
    pub fn kubeconfig(&self) -> &Path {
        &self.kubectl.config
    }

    /// kubectl and helm as the administrator.
    #[must_use]
    pub fn kubectl(&self) -> &Kubectl {
        &self.kubectl
    }

    /// Runs a command on a machine and gives what it prints.
    ///
    /// # Errors
    ///
    /// If there is no such machine, or the command fails.
    pub fn exec(&self, machine: Machine, argv: &[&str]) -> Result<String> {
        let words: Vec<_> = argv.iter().map(|word| (*word).to_owned()).collect();
        command::output(&mut self.command(machine, &words)?)
    }

    /// Runs a command on node `number`, counted from 1, and gives what it prints.
    ///
    /// # Errors
    ///
    /// If there is no such node, or the command fails.
    pub fn node_exec(&self, number: u8, argv: &[&str]) -> Result<String> {
        self.exec(Machine::Node(number), argv)
    }

    /// Runs a command on a machine with this process's terminal.
    ///
    /// # Errors
    ///
    /// If there is no such machine, or the command can't be started.
    pub fn attend(&self, machine: Machine, argv: &[String]) -> Result<ExitStatus> {
        command::attended(&mut self.command(machine, argv)?)
    }

    /// A command that will run on a machine, for callers that want to feed or to background it.
    ///
    /// # Errors
    ///
    /// If there is no such machine, or no command.
    pub fn command(&self, machine: Machine, argv: &[String]) -> Result<Command> {
        let Some((program, arguments)) = argv.split_first() else {
            return Err(Error::Argument {
                what: "an empty command".to_owned(),
                why: "name a program".to_owned(),
            });
        };
        Ok(match machine {
            Machine::Outside => {
                let arguments: Vec<_> = arguments.iter().map(String::as_str).collect();
                net::inside(&self.options.name, machine, program, &arguments)
            }
            _ => self.machine(machine)?.command(argv),
        })
    }

    /// Kills a service with SIGKILL: one of [`crate::CONTROL_PLANE_SERVICES`] or [`crate::NODE_SERVICES`]. It comes back
    /// after a second.
    ///
    /// # Errors
    ///
    /// If the machine has no such service, or it does not run.
    pub fn kill(&self, machine: Machine, service: &str) -> Result<()> {
        self.machine(machine)?.kill(service)
    }

    /// Kills every process of this name on a machine with SIGKILL, in pods too, and says how many there were.
    ///
    /// # Errors
    ///
    /// If the machine can't be asked.
    pub fn kill_processes(&self, machine: Machine, name: &str) -> Result<usize> {
        let running = self.machine(machine)?;
        // Killed in the shell that listed them, so that little can change between.
        let script = "pids=$(pgrep -x -- \"$1\") || exit 0; kill -KILL $pids; echo \"$pids\"";
        Ok(running
            .exec(&["sh", "-c", script, "kill", name])?
            .lines()
            .count())
    }

    /// Ends a service and keeps it from coming back.
    ///
    /// # Errors
    ///
    /// If the machine has no such service, or it does not end.
    pub fn stop(&self, machine: Machine, service: &str) -> Result<()> {
        self.machine(machine)?.set(service, Want::Down)
    }

    /// Starts a service that was stopped.
    ///
    /// # Errors
    ///
    /// If the machine has no such service, or it does not start.
    pub fn start(&self, machine: Machine, service: &str) -> Result<()> {
        self.machine(machine)?.set(service, Want::Up)
    }

    /// A service's process id on its machine, while it runs.
    ///
    /// # Errors
    ///
    /// If there is no such machine.
    pub fn service_pid(&self, machine: Machine, service: &str) -> Result<Option<u32>> {
        Ok(self.machine(machine)?.pid_of(service))
    }

    /// Waits until a service runs, and on a node until containerd answers.
    ///
    /// # Errors
    ///
    /// If there is no such machine, or the service does not come in time.
    pub fn wait_service(&self, machine: Machine, service: &str, limit: Duration) -> Result<()> {
        let running = self.machine(machine)?;
        let hint = format!("see {}", running.log(service).display());
        let what = format!("the start of {service} on {machine}");
        command::wait(&what, &hint, limit, || {
            let answers = service != "containerd" || running.exec(&["ctr", "version"]).is_ok();
            (running.pid_of(service).is_some() && answers).then_some(())
        })
    }

    /// Ends the API server and keeps it from coming back.
    ///
    /// # Errors
    ///
    /// If it does not end.
    pub fn stop_api_server(&self) -> Result<()> {
        self.stop(Machine::ControlPlane, "kube-apiserver")
    }

    /// Starts the API server after [`Self::stop_api_server`] and waits until it is ready.
    ///
    /// # Errors
    ///
    /// If it does not become ready.
    pub fn start_api_server(&self) -> Result<()> {
        self.start(Machine::ControlPlane, "kube-apiserver")?;
        self.wait_api_server(Duration::from_secs(90))
    }

    /// Waits until the API server says that it is ready.
    ///
    /// # Errors
    ///
    /// If it does not say so in time.
    pub fn wait_api_server(&self, limit: Duration) -> Result<()> {
        let hint = format!("see {}", self.control_plane.log("kube-apiserver").display());
        command::wait("the API server's readiness", &hint, limit, || {
            self.kubectl.is_ready().then_some(())
        })
    }

    /// Loads an image file into a node.
    ///
    /// # Errors
    ///
    /// If there is no such node, or containerd refuses the file.
    pub fn load_image(&self, number: u8, image: &Path) -> Result<()> {
        node::load(self.machine(Machine::Node(number))?, image)
    }

    /// Waits until all nodes are Ready.
    ///
    /// # Errors
    ///
    /// If they aren't in time.
    pub fn wait_ready(&self, limit: Duration) -> Result<()> {
        let timeout = format!("--timeout={}s", limit.as_secs());
        self.kubectl
            .run(&["wait", "--for=condition=Ready", "nodes", "--all", &timeout])
            .map(drop)
    }

    /// Has the control plane reach these pod addresses by way of node `number`, and no other: webhooks and aggregated servers
    /// in pods, and upstream's tests, need it. With the bridge plugin that is done already.
    ///
    /// # Errors
    ///
    /// If there is no such node, or the route is refused.
    pub fn route_to_pods(&self, number: u8, ranges: &[IpNet]) -> Result<()> {
        let node = Machine::Node(number);
        self.machine(node)?;
        ranges.iter().try_for_each(|&range| {
            net::route(&self.options.name, Machine::ControlPlane, range, node)
        })
    }

    fn machine(&self, machine: Machine) -> Result<&Running> {
        let absent = |why: String| Error::Argument {
            what: format!("the machine {machine}"),
            why,
        };
        match machine {
            Machine::ControlPlane => Ok(&self.control_plane),
            Machine::Outside => Err(absent("it has only a network namespace".to_owned())),
            Machine::Node(number) => usize::from(number)
                .checked_sub(1)
                .and_then(|index| self.nodes.get(index))
                .ok_or_else(|| absent(format!("the cluster has nodes 1 to {}", self.nodes.len()))),
        }
    }
}

fn kubectl(cache: &Cache, name: &Name, folder: &Path) -> Kubectl {
    Kubectl {
        name: name.clone(),
        programs: cache.programs(),
        config: folder.join("pki/admin.kubeconfig"),
    }
}
