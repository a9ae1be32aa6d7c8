//! The pods of a running lab: made, connected, given responders, removed. Which there should be, and policy, may not enter.

use std::{collections::BTreeMap, fs, path::PathBuf, process::Child};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use sluice_agent::{Interface, Node as Agent};
use sluice_world::PodRef;

use crate::{
    LabError,
    network::Node as Network,
    plan::{Listens, PodPlan},
    serve::{self, Job},
};

/// See the module.
#[derive(Debug)]
pub(crate) struct Pods {
    /// The program that is started as `program lab serve JOB`.
    program: PathBuf,
    made: BTreeMap<PodRef, Pod>,
    /// Responders of host-network pods, which live in the node's namespace.
    hosts: BTreeMap<PodRef, (Listens, Responder)>,
}

#[derive(Debug)]
struct Pod {
    plan: PodPlan,
    interface: u32,
    responder: Option<Responder>,
}

/// A responder's process: our child, or one that an earlier supervisor left.
#[derive(Debug)]
enum Responder {
    Child(Child),
    Left(u32),
}

impl Responder {
    fn pid(&self) -> u32 {
        match self {
            Self::Child(child) => child.id(),
            Self::Left(pid) => *pid,
        }
    }

    fn end(self) {
        match self {
            Self::Child(mut child) => {
                // One that has ended already is fine too.
                let _ = child.kill();
                let _ = child.wait();
            }
            Self::Left(pid) => {
                if let Ok(pid) = i32::try_from(pid) {
                    let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
                }
            }
        }
    }
}

impl Pods {
    pub(crate) const fn new(program: PathBuf) -> Self {
        Self {
            program,
            made: BTreeMap::new(),
            hosts: BTreeMap::new(),
        }
    }

    /// The plans of the pods that are there.
    pub(crate) fn plans(&self) -> impl Iterator<Item = &PodPlan> {
        self.made.values().map(|pod| &pod.plan)
    }

    /// The process of a pod's responder.
    pub(crate) fn responder(&self, pod: &PodRef) -> Option<u32> {
        self.made.get(pod)?.responder.as_ref().map(Responder::pid)
    }

    /// Removes the pods that are not wanted, or not as they are.
    pub(crate) fn remove_others(
        &mut self,
        wanted: &BTreeMap<PodRef, PodPlan>,
        network: &mut Network,
        agent: &mut Agent,
    ) -> Result<(), LabError> {
        let stays = |pod: &Pod| {
            wanted
                .get(&pod.plan.pod)
                .is_some_and(|plan| *plan == pod.plan)
        };
        let going: Vec<PodRef> = self
            .made
            .iter()
            .filter(|(_, pod)| !stays(pod))
            .map(|(id, _)| id.clone())
            .collect();
        for id in going {
            let Some(pod) = self.made.remove(&id) else {
                continue;
            };
            agent.remove_interface(&id)?;
            if let Some(responder) = pod.responder {
                responder.end();
            }
            network.remove_pod(&pod.plan)?;
        }
        Ok(())
    }

    /// Makes the wanted pods that are not there; nothing flows yet. Returns those made.
    pub(crate) fn make(
        &mut self,
        wanted: &BTreeMap<PodRef, PodPlan>,
        network: &mut Network,
        agent: &mut Agent,
    ) -> Result<Vec<PodRef>, LabError> {
        let mut made = Vec::new();
        for (id, plan) in wanted {
            if self.made.contains_key(id) {
                continue;
            }
            let interface = network.ensure_pod(plan)?;
            if !plan.external {
                agent.know_interface(id, endpoint(plan, interface))?;
            }
            self.made.insert(
                id.clone(),
                Pod {
                    plan: plan.clone(),
                    interface,
                    responder: None,
                },
            );
            made.push(id.clone());
        }
        Ok(made)
    }

    /// Attaches programs to pods just made and lets traffic flow: their tables are in force.
    pub(crate) fn connect(
        &mut self,
        made: &[PodRef],
        network: &mut Network,
        agent: &mut Agent,
    ) -> Result<(), LabError> {
        for id in made {
            let Some(pod) = self.made.get(id) else {
                continue;
            };
            if pod.plan.external {
                agent.add_outside(pod.interface, network.namespace())?;
            } else {
                agent.add_interface(id, endpoint(&pod.plan, pod.interface), network.namespace())?;
            }
            network.connect(&pod.plan, pod.interface)?;
        }
        Ok(())
    }

    /// Starts responders where there are none; `left` are processes of an earlier supervisor by pod.
    pub(crate) fn serve(
        &mut self,
        hosts: &BTreeMap<PodRef, Listens>,
        node_namespace: &str,
        left: &BTreeMap<PodRef, u32>,
    ) -> Result<(), LabError> {
        for (id, pod) in self
            .made
            .iter_mut()
            .filter(|(_, pod)| pod.responder.is_none())
        {
            if let Some(pid) = left.get(id).filter(|pid| is_responder(**pid)) {
                pod.responder = Some(Responder::Left(*pid));
            } else if !pod.plan.listens.is_empty() {
                let job = Job {
                    name: id.to_string(),
                    listens: pod.plan.listens.clone(),
                };
                pod.responder = Some(Responder::Child(serve::start(
                    &self.program,
                    &pod.plan.namespace,
                    &job,
                )?));
            }
        }
        self.serve_hosts(hosts, node_namespace)?;
        let started = self
            .made
            .values_mut()
            .filter_map(|pod| pod.responder.as_mut());
        for responder in started.chain(self.hosts.values_mut().map(|(_, responder)| responder)) {
            if let Responder::Child(child) = responder
                && child.stdout.is_some()
            {
                serve::wait_ready(child)?;
            }
        }
        Ok(())
    }

    fn serve_hosts(
        &mut self,
        wanted: &BTreeMap<PodRef, Listens>,
        namespace: &str,
    ) -> Result<(), LabError> {
        let going: Vec<PodRef> = self
            .hosts
            .iter()
            .filter(|(id, (listens, _))| wanted.get(*id) != Some(listens))
            .map(|(id, _)| id.clone())
            .collect();
        for id in going {
            if let Some((_, responder)) = self.hosts.remove(&id) {
                responder.end();
            }
        }
        for (id, listens) in wanted.iter().filter(|(_, listens)| !listens.is_empty()) {
            if !self.hosts.contains_key(id) {
                let job = Job {
                    name: id.to_string(),
                    listens: listens.clone(),
                };
                let child = serve::start(&self.program, namespace, &job)?;
                self.hosts
                    .insert(id.clone(), (listens.clone(), Responder::Child(child)));
            }
        }
        Ok(())
    }

    /// Ends all responders.
    pub(crate) fn end_responders(&mut self) {
        for responder in self
            .made
            .values_mut()
            .filter_map(|pod| pod.responder.take())
        {
            responder.end();
        }
        for (_, (_, responder)) in std::mem::take(&mut self.hosts) {
            responder.end();
        }
    }
}

fn endpoint(plan: &PodPlan, interface: u32) -> Interface {
    Interface {
        index: interface,
        mac: plan.mac,
        host_mac: plan.host_mac,
        addresses: plan.addresses.clone(),
        uid: None,
    }
}

/// Whether the process is a responder: its number may have been given to another since.
fn is_responder(pid: u32) -> bool {
    fs::read(format!("/proc/{pid}/cmdline")).is_ok_and(|line| {
        let words: Vec<&[u8]> = line.split(|byte| *byte == 0).collect();
        words.get(1..3) == Some(&[b"lab".as_slice(), b"serve".as_slice()])
    })
}
