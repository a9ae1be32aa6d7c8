//! Which cluster, as kubectl would find it.

use kube::{
    Client, Config,
    config::{KubeConfigOptions, Kubeconfig},
};

use crate::Error;

/// Where a command goes.
#[derive(Clone, Debug, Default)]
pub struct Target {
    /// A kubeconfig file, in place of `KUBECONFIG`, `~/.kube/config` and the pod's own account.
    pub kubeconfig: Option<std::path::PathBuf>,
    /// A context of it, in place of the current one.
    pub context: Option<String>,
}

/// A client of the target. Its default namespace is that of the context.
///
/// # Errors
/// No kubeconfig is found, or it does not say what a connection needs.
pub async fn client(target: &Target) -> Result<Client, Error> {
    // The only provider that is built in; a second call finds it there.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let config = config(target).await.map_err(|why| Error::Config { why })?;
    Client::try_from(config).map_err(|error| Error::Config {
        why: with_causes(&error),
    })
}

async fn config(target: &Target) -> Result<Config, String> {
    let options = KubeConfigOptions {
        context: target.context.clone(),
        ..KubeConfigOptions::default()
    };
    let given = match &target.kubeconfig {
        Some(path) => Some(Kubeconfig::read_from(path)),
        None if target.context.is_some() => Some(Kubeconfig::read()),
        None => None,
    };
    match given {
        Some(file) => {
            let file = file.map_err(|error| with_causes(&error))?;
            Config::from_custom_kubeconfig(file, &options)
                .await
                .map_err(|error| with_causes(&error))
        }
        None => Config::infer().await.map_err(|error| {
            format!(
                "no usable kubeconfig (KUBECONFIG, ~/.kube/config), and not in a pod: {}",
                with_causes(&error)
            )
        }),
    }
}

/// An error with all that it is due to, none said twice.
fn with_causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(next) = cause {
        let said = next.to_string();
        if !text.contains(&said) {
            text = format!("{text}: {said}");
        }
        cause = next.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn block_on<F: Future>(work: F) -> F::Output {
        tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap()
            .block_on(work)
    }

    #[test]
    fn a_file_and_a_context_are_taken_as_told() {
        let path = std::env::temp_dir().join(format!("sluice-kubeconfig-{}", std::process::id()));
        let file = "{apiVersion: v1, kind: Config, current-context: a, users: [{name: u, user: {token: t}}],
            clusters: [{name: c, cluster: {server: 'http://[::1]:1'}}, {name: d, cluster: {server: 'http://[::1]:2'}}],
            contexts: [{name: a, context: {cluster: c, user: u}}, {name: b, context: {cluster: d, user: u, namespace: shop}}]}";
        std::fs::write(&path, file).unwrap();
        let ask = |context: Option<&str>| {
            block_on(config(&Target {
                kubeconfig: Some(path.clone()),
                context: context.map(str::to_owned),
            }))
        };
        let (current, other, none) = (ask(None), ask(Some("b")), ask(Some("c")));
        std::fs::remove_file(&path).unwrap();
        assert_eq!(current.unwrap().cluster_url.to_string(), "http://[::1]:1/");
        let other = other.unwrap();
        assert_eq!(other.cluster_url.to_string(), "http://[::1]:2/");
        assert_eq!(other.default_namespace, "shop");
        assert!(none.unwrap_err().contains('c'));
    }

    #[test]
    fn a_file_that_is_not_there_is_named() {
        let target = Target {
            kubeconfig: Some("/nowhere/kubeconfig".into()),
            context: None,
        };
        let error = block_on(config(&target)).unwrap_err();
        assert!(error.contains("/nowhere/kubeconfig"), "{error}");
    }
}
