//! Starting a cluster, step by step, each told with its time.

use std::{
    fs,
    path::{Path, PathBuf},
    thread,
    time::{Duration, Instant},
};

use nix::unistd::Uid;

use super::{Cluster, bridge, down, kubectl};
use crate::{
    build,
    cache::Cache,
    command,
    control_plane::ControlPlane,
    error::{Error, Result},
    machine::{self, Running},
    net, node,
    options::{Cni, Options},
    pki::Authority,
    plan::Machine,
};

const DNS: &str = include_str!("../../manifests/coredns.yaml");

/// A node registers within seconds, unless the machine is busy with other things.
const REGISTERED: Duration = Duration::from_mins(2);

pub(super) fn up(options: Options, say: &mut dyn FnMut(&str)) -> Result<Cluster> {
    options.check()?;
    if !Uid::effective().is_root() {
        return Err(Error::Missing {
            what: "root".to_owned(),
            hint: "nodes are made of namespaces and mounts: run this as root".to_owned(),
        });
    }
    if Cluster::open(&options.name).is_ok() {
        return Err(Error::AlreadyUp {
            name: options.name.to_string(),
        });
    }
    let cache = Cache::find()?;
    build::check(&cache)?;
    down::down(&options.name)?;
    let name = options.name.clone();
    start(&cache, options, say).inspect_err(|_| {
        if let Err(left) = down::down(&name) {
            eprintln!("error: {left}");
        }
    })
}

fn start(cache: &Cache, options: Options, say: &mut dyn FnMut(&str)) -> Result<Cluster> {
    let begin = Instant::now();
    let mut said = |what: &str| say(&format!("{:>6.1} s  {what}", begin.elapsed().as_secs_f64()));
    let folder = cache.cluster(&options.name);
    fs::create_dir_all(&folder).map_err(Error::at("creating", &folder))?;
    write_options(&folder, &options)?;
    let pki = folder.join("pki");
    let authority = Authority::create(&pki)?;
    net::up(&options.name, options.nodes)?;
    said("network");
    let kubectl = kubectl(cache, &options.name, &folder);
    let cp = machine::start(
        &options.name,
        Machine::ControlPlane,
        &machine_folder(&folder, Machine::ControlPlane)?,
        None,
    )?;
    ControlPlane {
        machine: &cp,
        programs: cache.programs(),
        pki: pki.clone(),
        data: folder.join("etcd"),
        options: &options,
    }
    .start(&kubectl)?;
    said("control plane");
    let images = images(cache, &options)?;
    let nodes = start_nodes(cache, &options, &folder, &authority, &pki, &images)?;
    said(&format!(
        "{} nodes started, {} images loaded on each",
        options.nodes,
        images.len()
    ));
    let cluster = Cluster {
        options,
        folder,
        kubectl,
        control_plane: cp,
        nodes,
    };
    registered(&cluster)?;
    said("nodes registered");
    connect(&cluster, &mut said)?;
    Ok(cluster)
}

fn start_nodes(
    cache: &Cache,
    options: &Options,
    folder: &Path,
    authority: &Authority,
    pki: &Path,
    images: &[PathBuf],
) -> Result<Vec<Running>> {
    for number in 1..=options.nodes {
        authority.node(Machine::Node(number))?;
    }
    thread::scope(|scope| {
        let start = |number: u8| {
            let node = Machine::Node(number);
            let folder = machine_folder(folder, node)?;
            node::configure(node, &folder.join("root"), pki, options.proxy)?;
            let running = machine::start(&options.name, node, &folder, Some(&cache.programs()))?;
            node::start(node, &running, images, options.proxy)?;
            Ok(running)
        };
        let threads: Vec<_> = (1..=options.nodes)
            .map(|number| scope.spawn(move || start(number)))
            .collect();
        let died = |_| Error::Missing {
            what: "a node's starter".to_owned(),
            hint: "it panicked, see above".to_owned(),
        };
        threads
            .into_iter()
            .map(|thread| thread.join().map_err(died)?)
            .collect()
    })
}

fn registered(cluster: &Cluster) -> Result<()> {
    for (index, running) in cluster.nodes.iter().enumerate() {
        let name = format!("node{}", index + 1);
        let hint = format!("see {}", running.log("kubelet").display());
        command::wait(
            &format!("the registration of {name}"),
            &hint,
            REGISTERED,
            || cluster.kubectl.run(&["get", "node", &name]).ok(),
        )
        // The log goes with the cluster that did not start.
        .map_err(|error| error.with_log(&running.log("kubelet")))?;
    }
    Ok(())
}

fn connect(cluster: &Cluster, said: &mut dyn FnMut(&str)) -> Result<()> {
    let options = &cluster.options;
    if options.cni == Cni::Bridge {
        bridge::install(cluster)?;
        cluster.wait_ready(Duration::from_secs(90))?;
        said("bridge plugin installed, nodes Ready");
    }
    if options.dns {
        cluster.kubectl.apply(DNS)?;
    }
    Ok(())
}

/// What every cluster has, and what this one has besides.
fn images(cache: &Cache, options: &Options) -> Result<Vec<PathBuf>> {
    let mut images = build::common_images(cache)?;
    for image in &options.images {
        if !image.is_file() {
            return Err(Error::Missing {
                what: format!("the image file {}", image.display()),
                hint: "build it first".to_owned(),
            });
        }
        images.push(image.clone());
    }
    Ok(images)
}

fn machine_folder(cluster: &Path, machine: Machine) -> Result<PathBuf> {
    let folder = cluster.join(machine.to_string());
    fs::create_dir_all(&folder).map_err(Error::at("creating", &folder))?;
    Ok(folder)
}

fn write_options(folder: &Path, options: &Options) -> Result<()> {
    let path = folder.join("options.json");
    let text = serde_json::to_vec_pretty(options).map_err(|error| Error::Unreadable {
        what: path.display().to_string(),
        why: error.to_string(),
    })?;
    fs::write(&path, text).map_err(Error::at("writing", &path))
}
