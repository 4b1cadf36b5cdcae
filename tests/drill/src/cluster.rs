//! Three nodes with RabbitMQ, MongoDB and the product.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use bson::{Document, doc};
use mongodb::Client;
use serde_json::{Value, json};

use crate::network::{NODES, address, name};
use crate::node::{CommandLine, Node, Program};

/// Of all sources; its SHA-256 is what the list of sources has.
pub(crate) const SOURCE_TOKEN: &str = "drill-token-of-all-sources";
const TOKEN_HASH: &str = "sha256:b536eee92be99ee65e094ac638c5fe2e4f84d24f6c7b67e4432997304e9556a7";
/// Of the product's own API.
pub(crate) const API_TOKEN: &str = "drill-token-of-the-api";
/// Its database.
pub(crate) const DATABASE: &str = "drill";
/// The longest that anything is waited for: far beyond what it takes on a busy machine.
pub(crate) const DEADLINE: Duration = Duration::from_secs(300);

pub(crate) struct Cluster {
    pub(crate) nodes: Vec<Node>,
    pub(crate) http: reqwest::Client,
    pub(crate) mongo: Client,
}

pub(crate) fn queue(account: usize) -> String {
    format!("Q{account}")
}

/// Waits until something holds.
pub(crate) async fn until<F: Future<Output = Result<bool>>>(
    what: &str,
    mut holds: impl FnMut() -> F,
) -> Result<()> {
    let began = Instant::now();
    loop {
        // MongoDB's driver waits for a member that has gone silent for as long as it is.
        let said = match tokio::time::timeout(Duration::from_secs(30), holds()).await {
            Ok(Ok(true)) => return Ok(()),
            Ok(Ok(false)) => "not yet".to_owned(),
            Ok(Err(error)) => format!("{error:#}"),
            Err(_) => "it was not told within 30 s".to_owned(),
        };
        if began.elapsed() > DEADLINE {
            bail!("{what}: not within {DEADLINE:?} ({said})");
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}

impl Cluster {
    /// Lays out and starts all of it. `accounts` have a queue each.
    pub(crate) async fn start(
        folder: &Path,
        galerna: &Path,
        accounts: usize,
        lease: Duration,
    ) -> Result<Self> {
        let directory = folder.join("directory.json");
        let entry = |n: usize| json!({"id": format!("A{n}"), "queue": queue(n)});
        let source =
            |n: usize| json!({"id": format!("S{n}"), "account": format!("A{n}"), "token_hash": TOKEN_HASH});
        let list = json!({
            "accounts": (0..accounts).map(entry).collect::<Vec<_>>(),
            "sources": (0..accounts).map(source).collect::<Vec<_>>(),
        });
        std::fs::write(&directory, list.to_string())?;
        let mut nodes = Vec::new();
        for number in NODES {
            let mut node = Node::new(number, folder)?;
            rabbitmq(&mut node)?;
            mongod(&mut node)?;
            modules(&mut node, galerna, &directory, lease);
            nodes.push(node);
        }
        let http = reqwest::Client::builder().timeout(Duration::from_secs(10)).build()?;
        let members = NODES.map(|n| format!("{}:27017", address(n))).join(",");
        let options = "replicaSet=drill&serverSelectionTimeoutMS=3000&connectTimeoutMS=3000";
        let mongo = Client::with_uri_str(format!("mongodb://{members}/?{options}")).await?;
        let mut cluster = Self { nodes, http, mongo };
        for program in [Program::PortMapper, Program::MongoDb] {
            cluster.start_everywhere(program)?;
        }
        // The first makes the cluster, the others join it.
        cluster.node(1).start(Program::RabbitMq)?;
        cluster.initiate().await.context("making a replica set")?;
        cluster.rabbitmq_is_up(1).await?;
        cluster.start_everywhere(Program::RabbitMq)?;
        for node in NODES {
            cluster.rabbitmq_is_up(node).await?;
        }
        for program in Program::MODULES {
            cluster.start_everywhere(program)?;
        }
        cluster.is_ready().await?;
        Ok(cluster)
    }

    pub(crate) fn node(&mut self, number: usize) -> &mut Node {
        &mut self.nodes[number - 1]
    }

    /// The nodes that are not lost.
    pub(crate) fn alive(&self) -> Vec<usize> {
        self.nodes.iter().filter(|node| !node.lost).map(|node| node.number).collect()
    }

    pub(crate) fn start_everywhere(&mut self, program: Program) -> Result<()> {
        self.nodes.iter_mut().try_for_each(|node| node.start(program))
    }

    /// Starts whatever does not run. RabbitMQ goes first where a node was lost: its modules wait for it by themselves.
    pub(crate) fn start_all(&mut self) -> Result<()> {
        Program::ALL.into_iter().try_for_each(|program| self.start_everywhere(program))
    }

    async fn initiate(&self) -> Result<()> {
        let members: Vec<Document> = NODES
            .into_iter()
            .map(|n| doc! { "_id": i32::try_from(n).unwrap_or(0), "host": format!("{}:27017", address(n)) })
            .collect();
        let settings = doc! { "electionTimeoutMillis": 5000, "heartbeatIntervalMillis": 1000 };
        let config = doc! { "_id": "drill", "members": members, "settings": settings };
        let one =
            format!("mongodb://{}:27017/?directConnection=true&serverSelectionTimeoutMS=1000", address(1));
        let one = Client::with_uri_str(one).await?;
        until("MongoDB takes the replica set", || async {
            let made = one.database("admin").run_command(doc! { "replSetInitiate": config.clone() }).await;
            match made {
                Ok(_) => Ok(true),
                // It may have taken it and not have answered.
                Err(error) if error.to_string().contains("already initialized") => Ok(true),
                Err(error) => Err(error.into()),
            }
        })
        .await?;
        until("MongoDB has a primary", || async { self.primary().await.map(|_| true) }).await
    }

    /// The node whose MongoDB is the primary.
    pub(crate) async fn primary(&self) -> Result<usize> {
        let hello = self.mongo.database("admin").run_command(doc! { "hello": 1 }).await?;
        let primary = hello.get_str("primary").context("there is no primary")?;
        let host = primary.split(':').next().unwrap_or_default();
        NODES
            .into_iter()
            .find(|n| address(*n) == host)
            .with_context(|| format!("primary {primary} is no node"))
    }

    pub(crate) async fn rabbitmq(&self, node: usize, path: &str) -> Result<Value> {
        let url = format!("http://{}:15672{path}", address(node));
        let answer =
            self.http.get(url).basic_auth("guest", Some("guest")).send().await?.error_for_status()?;
        Ok(answer.json().await?)
    }

    /// Waits until the RabbitMQ of a node is up, and knows all nodes that are not lost.
    async fn rabbitmq_is_up(&self, node: usize) -> Result<()> {
        until(&format!("RabbitMQ runs on {}", name(node)), || async {
            let nodes = self.rabbitmq(node, "/api/nodes").await?;
            let own = format!("rabbit@{}", name(node));
            let running = |n: &Value| n["name"] == own.as_str() && n["running"] == true;
            Ok(nodes.as_array().is_some_and(|nodes| nodes.iter().any(running)))
        })
        .await
    }

    /// Waits until every module of every node that is not lost can do its work, and RabbitMQ's nodes know each other. What ends meanwhile
    /// is started again, as a service manager does: a module that finds no store when it starts ends.
    pub(crate) async fn is_ready(&mut self) -> Result<()> {
        let began = Instant::now();
        loop {
            self.start_all()?;
            match self.who_is_not_ready().await {
                None => return Ok(()),
                Some(who) if began.elapsed() > DEADLINE => bail!("{who}: not ready within {DEADLINE:?}"),
                Some(_) => tokio::time::sleep(Duration::from_secs(1)).await,
            }
        }
    }

    async fn who_is_not_ready(&self) -> Option<String> {
        let alive = self.alive();
        for node in &alive {
            let nodes = self.rabbitmq(*node, "/api/nodes").await.unwrap_or_default();
            let running =
                nodes.as_array().map_or(0, |all| all.iter().filter(|n| n["running"] == true).count());
            if running < alive.len() {
                return Some(format!("RabbitMQ of {}, which sees {running} nodes", name(*node)));
            }
            for port in [7676, 7677, 8080, 8092] {
                let url = format!("http://{}:{port}/readyz", address(*node));
                if !self.http.get(url).send().await.is_ok_and(|answer| answer.status().is_success()) {
                    return Some(format!("{}:{port}", name(*node)));
                }
            }
        }
        None
    }
}

fn rabbitmq(node: &mut Node) -> Result<()> {
    let server = galerna_test_servers::rabbitmq_program();
    let folder = node.folder.join("rabbitmq");
    for part in ["home", "data", "conf.d"] {
        std::fs::create_dir_all(folder.join(part))?;
    }
    let write = |name: &str, text: &str| std::fs::write(folder.join(name), text);
    write("rabbitmq-env.conf", "")?;
    write("enabled_plugins", "[rabbitmq_management].\n")?;
    write("home/.erlang.cookie", "drill")?;
    let cookie = folder.join("home/.erlang.cookie");
    std::fs::set_permissions(cookie, std::os::unix::fs::PermissionsExt::from_mode(0o400))?;
    // A node that does not answer counts as gone after 8 s rather than a minute.
    write("advanced.config", "[{kernel, [{net_ticktime, 8}]}].\n")?;
    let peers: String = NODES
        .into_iter()
        .map(|n| format!("cluster_formation.classic_config.nodes.{n} = rabbit@{}\n", name(n)))
        .collect();
    write(
        "rabbitmq.conf",
        &format!(
            "loopback_users = none\nlog.console = true\nlog.console.level = info\nlog.file = false\n\
             disk_free_limit.absolute = 1MB\nvm_memory_high_watermark.relative = 0.6\ncollect_statistics_interval = 1000\n\
             cluster_formation.peer_discovery_backend = classic_config\n{peers}\
             cluster_partition_handling = pause_minority\n\
             mnesia_table_loading_retry_timeout = 10000\nmnesia_table_loading_retry_limit = 60\n"
        ),
    )?;
    let at = |part: &str| folder.join(part).display().to_string();
    let quiet = "-noinput -shutdown_time 1000 +S 2:2 +sbwt none +sbwtdcpu none +sbwtdio none";
    let environment = [
        ("HOME", at("home")),
        ("RABBITMQ_CONF_ENV_FILE", at("rabbitmq-env.conf")),
        ("RABBITMQ_CONFIG_FILE", at("rabbitmq.conf")),
        ("RABBITMQ_CONFIG_FILES", at("conf.d")),
        ("RABBITMQ_ADVANCED_CONFIG_FILE", at("advanced.config")),
        ("RABBITMQ_ENABLED_PLUGINS_FILE", at("enabled_plugins")),
        ("RABBITMQ_MNESIA_BASE", at("data")),
        ("RABBITMQ_LOG_BASE", folder.display().to_string()),
        ("RABBITMQ_LOGS", "-".to_owned()),
        ("RABBITMQ_NODENAME", format!("rabbit@{}", name(node.number))),
        ("RABBITMQ_ALLOW_INPUT", "1".to_owned()),
        ("RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS", quiet.to_owned()),
        ("LC_ALL", "C.UTF-8".to_owned()),
    ];
    let environment = environment.map(|(variable, value)| (variable.to_owned(), value)).to_vec();
    let mapper = CommandLine { words: vec!["epmd".to_owned()], environment: environment.clone() };
    node.set(Program::PortMapper, mapper);
    node.set(Program::RabbitMq, CommandLine { words: vec![server.display().to_string()], environment });
    Ok(())
}

fn mongod(node: &mut Node) -> Result<()> {
    let data = node.folder.join("mongodb");
    std::fs::create_dir_all(&data)?;
    let program = galerna_test_servers::mongod_program().display().to_string();
    let (data, own) = (data.display().to_string(), format!("127.0.0.1,{}", address(node.number)));
    let words = [
        program.as_str(),
        "--bind_ip",
        &own,
        "--dbpath",
        &data,
        "--nounixsocket",
        "--replSet",
        "drill",
        "--wiredTigerCacheSizeGB",
        "0.25",
        "--oplogSize",
        "256",
        "--setParameter",
        "diagnosticDataCollectionEnabled=false",
        "--quiet",
    ];
    let words = words.map(str::to_owned).to_vec();
    node.set(Program::MongoDb, CommandLine { words, environment: Vec::new() });
    Ok(())
}

fn modules(node: &mut Node, galerna: &Path, directory: &Path, lease: Duration) {
    let own = name(node.number);
    let beside = NODES.into_iter().filter(|n| *n != node.number).map(name);
    let dispatchers: Vec<String> =
        std::iter::once(own.clone()).chain(beside).map(|n| format!("http://{n}:7676")).collect();
    let members = NODES.map(|n| format!("{}:27017", address(n))).join(",");
    let here = address(node.number);
    let settings = [
        ("DATA", node.folder.join("data").display().to_string()),
        ("BROKER_URL", format!("amqp://guest:guest@{own}:5672")),
        ("BROKER_MANAGEMENT_URL", format!("http://guest:guest@{own}:15672")),
        // A message that a cluster in trouble gives back is no poison.
        ("BROKER_MAX_DELIVERIES", "1000".to_owned()),
        ("STORE_URL", format!("mongodb://{members}/{DATABASE}?replicaSet=drill")),
        ("API_TOKEN", API_TOKEN.to_owned()),
        ("API_LISTEN", format!("{here}:7676")),
        ("DISPATCHER_URL", dispatchers.join(",")),
        ("DISPATCHER_LEASE", format!("{}ms", lease.as_millis())),
        ("MAINTAINER_LISTEN", format!("{here}:7677")),
        ("MAINTAINER_URL", format!("http://{own}:7677")),
        ("MAINTAINER_ACCOUNTS", directory.display().to_string()),
        ("MAINTAINER_ACCOUNTS_EVERY", "2s".to_owned()),
        ("FRONTEND_LISTEN", format!("{here}:8080")),
        ("FRONTEND_NOTICE", "0ms".to_owned()),
        ("WORKER_NAME", format!("worker-{own}")),
        ("WORKER_LISTEN", format!("{here}:8092")),
        // So that queues change hands.
        ("WORKER_MESSAGES_PER_LEASE", "20".to_owned()),
        ("WORKER_LINGER", "500ms".to_owned()),
        ("LOG_FORMAT", "json".to_owned()),
    ];
    let environment: Vec<(String, String)> =
        settings.into_iter().map(|(name, value)| (format!("GALERNA_{name}"), value)).collect();
    for program in Program::MODULES {
        let words = vec![galerna.display().to_string(), program.word().to_owned()];
        node.set(program, CommandLine { words, environment: environment.clone() });
    }
}
