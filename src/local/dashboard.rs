//! The dashboard server: the control API, and the page that npm builds from `client/`.

use std::{
    fs::{self, File},
    net::Ipv4Addr,
    path::{Path, PathBuf},
    process::Stdio,
    time::SystemTime,
};

use anyhow::{Context as _, bail};
use axum::Router;
use tokio::{net::TcpListener, process::Command};
use tower_http::services::ServeDir;
use tracing::{info, warn};

use super::{cloud::Cloud, control};

/// The listening socket of the dashboard. It is bound first: its origin is what the Functions hosts allow by CORS.
pub(super) struct Dashboard {
    listener: TcpListener,
    port: u16,
}

impl Dashboard {
    pub(super) async fn bind(port: u16) -> anyhow::Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, port)).await.with_context(|| {
            format!("cannot listen on 127.0.0.1:{port} for the dashboard; try `--ports auto`, or `--port-base` with a free block")
        })?;
        let port = listener
            .local_addr()
            .context("the dashboard has no address")?
            .port();
        Ok(Self { listener, port })
    }

    pub(super) fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// The origins under which a browser may have loaded the page.
    pub(super) fn origins(&self) -> [String; 2] {
        [self.url(), format!("http://localhost:{}", self.port)]
    }

    /// Serves the control API, and the page where there is one, until dropped.
    pub(super) async fn serve(self, cloud: Cloud, page: Option<PathBuf>) -> anyhow::Result<()> {
        let mut router: Router = control::router(cloud);
        if let Some(page) = page {
            router = router.fallback_service(ServeDir::new(page));
        }
        axum::serve(self.listener, router)
            .await
            .context("the dashboard server failed")
    }
}

/// Builds the page if it is not built yet or its sources have changed, and returns its folder.
///
/// `None` when it cannot be built here; a line in the log says why, and all else works without it.
pub(super) async fn page() -> Option<PathBuf> {
    build()
        .await
        .inspect_err(|cause| warn!("no page: {cause:#}"))
        .ok()
}

async fn build() -> anyhow::Result<PathBuf> {
    let client = client_folder()
        .context("the sources of the dashboard (client/) are where neither this executable was built nor it runs")?;
    // Two systems started at once must not install into one folder side by side.
    let lock = client.join(".build.lock");
    let _lock = tokio::task::spawn_blocking(move || {
        let file =
            File::create(&lock).with_context(|| format!("cannot create {}", lock.display()))?;
        file.lock()
            .with_context(|| format!("cannot lock {}", lock.display()))?;
        anyhow::Ok(file)
    })
    .await
    .context("waiting for the build lock failed")??;

    let page = client.join("dist");
    if is_current(&client, &page)? {
        return Ok(page);
    }
    if !npm_is_there().await {
        bail!("npm is not installed; install Node.js 20.19 or newer to see the dashboard");
    }
    info!("building the dashboard with npm; this is done once");
    npm(&client, &["ci", "--no-audit", "--no-fund"]).await?;
    npm(&client, &["run", "build"]).await?;
    Ok(page)
}

/// `client/` of the source tree this executable was built from, or of the current folder.
fn client_folder() -> Option<PathBuf> {
    [concat!(env!("CARGO_MANIFEST_DIR"), "/client"), "client"]
        .into_iter()
        .map(PathBuf::from)
        .find(|folder| folder.join("package.json").is_file())
}

fn npm_program() -> &'static str {
    if cfg!(windows) { "npm.cmd" } else { "npm" }
}

async fn npm_is_there() -> bool {
    let version = Command::new(npm_program())
        .arg("--version")
        .stdin(Stdio::null())
        .output()
        .await;
    version.is_ok_and(|output| output.status.success())
}

/// Runs npm with its output on our stderr: stdout belongs to the ready line.
async fn npm(client: &Path, args: &[&str]) -> anyhow::Result<()> {
    let status = Command::new(npm_program())
        .args(args)
        .current_dir(client)
        .stdin(Stdio::null())
        .stdout(std::io::stderr())
        .kill_on_drop(true)
        .status()
        .await
        .with_context(|| format!("cannot run npm {}", args.join(" ")))?;
    if !status.success() {
        bail!(
            "`npm {}` failed in {} ({status}); see its output above",
            args.join(" "),
            client.display()
        );
    }
    Ok(())
}

/// Whether the page is at least as new as everything it is made from.
fn is_current(client: &Path, page: &Path) -> anyhow::Result<bool> {
    let Ok(built) = fs::metadata(page.join("index.html")).and_then(|file| file.modified()) else {
        return Ok(false);
    };
    Ok(newest_source(client)? <= built)
}

/// Modification time of the newest file of `folder`, leaving out what npm and Vite write there.
fn newest_source(folder: &Path) -> anyhow::Result<SystemTime> {
    let read = |path: &Path| format!("cannot read {}", path.display());
    let mut newest = SystemTime::UNIX_EPOCH;
    for entry in fs::read_dir(folder).with_context(|| read(folder))? {
        let entry = entry.with_context(|| read(folder))?;
        let name = entry.file_name();
        if ["node_modules", "dist", ".build.lock"]
            .iter()
            .any(|written| name == *written)
        {
            continue;
        }
        let path = entry.path();
        let metadata = entry.metadata().with_context(|| read(&path))?;
        let modified = if metadata.is_dir() {
            newest_source(&path)?
        } else {
            metadata.modified().with_context(|| read(&path))?
        };
        newest = newest.max(modified);
    }
    Ok(newest)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_page_older_than_a_source_is_built_again() {
        let client = tempfile::tempdir().expect("a folder");
        let page = client.path().join("dist");
        let sources = client.path().join("src");
        for folder in [&page, &sources, &client.path().join("node_modules")] {
            fs::create_dir(folder).expect("created");
        }
        let touch = |path: &Path, seconds| {
            let file = File::create(path).expect("created");
            file.set_modified(SystemTime::UNIX_EPOCH + Duration::from_secs(seconds))
                .expect("touched");
        };
        assert!(
            !is_current(client.path(), &page).expect("readable"),
            "not built yet"
        );
        touch(&sources.join("main.ts"), 100);
        touch(&page.join("index.html"), 200);
        touch(&client.path().join("node_modules").join("x"), 900);
        assert!(is_current(client.path(), &page).expect("readable"));
        touch(&sources.join("main.ts"), 300);
        assert!(!is_current(client.path(), &page).expect("readable"));
    }
}
