//! The command line, as clap reads it.

use clap::{Args, Parser, Subcommand, ValueEnum};
use std::path::PathBuf;

/// The cluster's shell: what is wanted, what is seen, and why.
#[derive(Debug, Parser)]
#[command(
    name = "crm",
    version,
    disable_help_subcommand = true,
    after_help = "Without a command: interactive, or commands from standard input.\n\
                  Of the same executable: `crm daemon` (crmd), `crm demo` (two nodes on this machine).\n\
                  Exit codes: 0 done, 1 refused, 2 broken."
)]
pub(crate) struct Cli {
    /// Read commands from FILE (`-` = standard input): what one would type at the prompt.
    #[arg(short = 'f', long = "file", value_name = "FILE")]
    pub(crate) file: Option<PathBuf>,
    #[command(subcommand)]
    pub(crate) command: Option<Cmd>,
}

/// A line at the interactive prompt.
#[derive(Debug, Parser)]
#[command(name = "crm", no_binary_name = true, disable_help_subcommand = true)]
pub(crate) struct PromptLine {
    #[command(subcommand)]
    pub(crate) command: Cmd,
}

/// How to print data.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
pub(crate) enum Format {
    /// For people.
    #[default]
    Text,
    /// For programs.
    Json,
}

/// The commands.
#[derive(Debug, Subcommand)]
pub(crate) enum Cmd {
    /// What runs where.
    Status(StatusArgs),
    /// The configuration: show it, change it (interactive without words).
    Configure(ConfigureArgs),
    /// Nodes: drain, bring back, show.
    #[command(subcommand)]
    Node(NodeCmd),
    /// Resources: start, stop, clean up, show.
    #[command(subcommand)]
    Resource(ResourceCmd),
    /// Fencing: devices, what they reach, what was done.
    #[command(subcommand)]
    Fence(FenceCmd),
    /// Keep the cluster's hands off for a time: nothing is fenced, recovered or started; what runs goes on.
    Disarm(DisarmArgs),
    /// End of `disarm`: the cluster acts again.
    Arm,
    /// Replicated volumes: make, show, resolve.
    #[command(subcommand)]
    Volume(VolumeCmd),
    /// The cluster itself: found, join, show.
    #[command(subcommand)]
    Cluster(ClusterCmd),
    /// Make the configuration what a YAML file says.
    Apply(ApplyArgs),
    /// Print the configuration as YAML.
    Export,
    /// What `apply` of FILE (YAML or crm text) would change.
    Diff {
        /// The file; `-` = standard input.
        file: PathBuf,
    },
    /// What is legal but unwise in the configuration (or in FILE).
    Lint {
        /// YAML or crm text; the cluster's configuration without it.
        file: Option<PathBuf>,
    },
    /// Whether the cluster's configuration (or FILE) is valid.
    Verify {
        /// YAML or crm text; the cluster's configuration without it.
        file: Option<PathBuf>,
    },
    /// Why a resource is where it is (or is not on NODE), and what would change it.
    Why(Box<WhyArgs>),
    /// All decisions: where each resource is, why, what would be second best, what has only one place to be.
    Audit(Box<AuditArgs>),
    /// Who changed the configuration, when, how.
    Log {
        /// The configuration as of this version.
        version: Option<u64>,
        /// Output.
        #[arg(short, long, value_enum, default_value_t)]
        output: Format,
    },
    /// What would be done: with the live cluster, or with a file (no cluster and no root needed).
    Simulate(Box<SimulateArgs>),
    /// The status again after every change, until interrupted.
    #[command(visible_alias = "watch")]
    Monitor {
        /// One JSON document a line.
        #[arg(short, long, value_enum, default_value_t)]
        output: Format,
    },
}

/// Whose words a simulation is told in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
pub(crate) enum Style {
    /// Ours: what would be done, and why.
    #[default]
    Plain,
    /// The sections of `crm_simulate -S`.
    Pacemaker,
}

/// What a file with a configuration is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum FileFormat {
    /// Pacemaker's CIB.
    Xml,
    /// The crm shell's text.
    Crm,
    /// YAML, as `crm export` writes it.
    Yaml,
}

/// Which cluster is looked at, and what is assumed of it.
#[derive(Debug, Clone, Default, Args)]
pub(crate) struct SceneArgs {
    /// Pacemaker's CIB (XML, with status), crm text or YAML instead of the live cluster; `-` = standard input.
    #[arg(short = 'x', long, alias = "xml-file", value_name = "FILE")]
    pub(crate) cib: Option<PathBuf>,
    /// The same as `--cib -`.
    #[arg(short = 'p', long = "xml-pipe", hide = true, conflicts_with = "cib")]
    pub(crate) pipe: bool,
    /// The live cluster (it is meant without `--cib`).
    #[arg(short = 'L', long = "live-check", hide = true, conflicts_with_all = ["cib", "pipe"])]
    pub(crate) live: bool,
    /// What FILE is; without it, it is recognised.
    #[arg(long, value_enum)]
    pub(crate) format: Option<FileFormat>,
    /// The time rules and failures are judged at: `2026-03-01 12:00:00Z`, or seconds since the epoch.
    #[arg(short = 't', long, alias = "set-datetime", value_name = "TIME")]
    pub(crate) at: Option<String>,
    /// As if this node were up.
    #[arg(short = 'u', long, value_name = "NODE", help_heading = "What if")]
    pub(crate) node_up: Vec<String>,
    /// As if this node had left in good order.
    #[arg(short = 'd', long, value_name = "NODE", help_heading = "What if")]
    pub(crate) node_down: Vec<String>,
    /// As if this node had been lost: it may still run things.
    #[arg(short = 'f', long, alias = "node-fail", value_name = "NODE", help_heading = "What if")]
    pub(crate) node_lost: Vec<String>,
    /// As if this node were in standby.
    #[arg(long, value_name = "NODE", help_heading = "What if")]
    pub(crate) node_standby: Vec<String>,
    /// As if this node were not in standby.
    #[arg(long, value_name = "NODE", help_heading = "What if")]
    pub(crate) node_online: Vec<String>,
    /// As if this resource had failed (without OP: as what watches it would report).
    #[arg(long, value_name = "RSC[:OP]@NODE[=RC]", help_heading = "What if")]
    pub(crate) fail: Vec<String>,
    /// As if this operation had ended with this code; the interval in milliseconds.
    #[arg(
        short = 'i',
        long,
        alias = "op-inject",
        value_name = "RSC_OP_INTERVAL@NODE=RC",
        help_heading = "What if"
    )]
    pub(crate) op: Vec<String>,
    /// As if the cluster had quorum, or not.
    #[arg(short = 'q', long, value_name = "yes|no", value_parser = yes_or_no, help_heading = "What if")]
    pub(crate) quorum: Option<bool>,
    /// As if the cluster had got this ticket.
    #[arg(short = 'g', long, value_name = "TICKET", help_heading = "What if")]
    pub(crate) ticket_grant: Vec<String>,
    /// As if the cluster had lost this ticket.
    #[arg(short = 'r', long, value_name = "TICKET", help_heading = "What if")]
    pub(crate) ticket_revoke: Vec<String>,
    /// As if this ticket were about to be given up.
    #[arg(short = 'b', long, value_name = "TICKET", help_heading = "What if")]
    pub(crate) ticket_standby: Vec<String>,
    /// As if this ticket were not about to be given up.
    #[arg(short = 'e', long, value_name = "TICKET", help_heading = "What if")]
    pub(crate) ticket_activate: Vec<String>,
}

/// `crm simulate`.
#[derive(Debug, Args)]
#[command(
    after_help = "Changes nothing anywhere. Exit codes: 0 simulated (whatever would be done), 1 bad input, 2 no cluster to ask."
)]
#[expect(clippy::struct_excessive_bools, reason = "each is one option of the command line")]
pub(crate) struct SimulateArgs {
    #[command(flatten)]
    pub(crate) scene: SceneArgs,
    /// As if this operation, when it is executed, ended with this code.
    #[arg(
        short = 'F',
        long,
        alias = "op-fail",
        value_name = "RSC_OP_INTERVAL@NODE=RC",
        help_heading = "What if"
    )]
    pub(crate) op_result: Vec<String>,
    /// The scores of all nodes for all resources, as they were placed.
    #[arg(short, long, alias = "show-scores")]
    pub(crate) scores: bool,
    /// Write the transition graph as Pacemaker's XML.
    #[arg(short = 'G', long, alias = "save-graph", value_name = "FILE")]
    pub(crate) graph: Option<PathBuf>,
    /// Write the transition graph for graphviz.
    #[arg(short = 'D', long, alias = "save-dotfile", value_name = "FILE")]
    pub(crate) dot: Option<PathBuf>,
    /// Draw the transition graph.
    #[arg(long, value_name = "FILE")]
    pub(crate) svg: Option<PathBuf>,
    /// Make the plan and do not run it to its end.
    #[arg(long, conflicts_with = "op_result")]
    pub(crate) plan_only: bool,
    /// Whose words.
    #[arg(long, value_enum, default_value_t)]
    pub(crate) style: Style,
    /// Output.
    #[arg(short, long, value_enum, default_value_t)]
    pub(crate) output: Format,
    /// Of `crm_simulate`, for habit: a plan is run to its end unless `--plan-only` says otherwise.
    #[arg(short = 'S', long, hide = true)]
    pub(crate) simulate: bool,
    /// Of `crm_simulate`, for habit.
    #[arg(short = 'R', long, hide = true)]
    pub(crate) run: bool,
}

/// `crm why`.
#[derive(Debug, Args)]
#[command(
    after_help = "The first line is the answer. With --cib the file is asked, without it the live cluster."
)]
pub(crate) struct WhyArgs {
    /// A primitive, group or clone.
    pub(crate) resource: String,
    /// Only about this node.
    pub(crate) node: Option<String>,
    #[command(flatten)]
    pub(crate) scene: SceneArgs,
    /// Output.
    #[arg(short, long, value_enum, default_value_t)]
    pub(crate) output: Format,
}

/// `crm audit`.
#[derive(Debug, Args)]
#[command(
    after_help = "Exit code 0 whatever is found. With --cib the file is asked, without it the live cluster."
)]
pub(crate) struct AuditArgs {
    #[command(flatten)]
    pub(crate) scene: SceneArgs,
    /// Output.
    #[arg(short, long, value_enum, default_value_t)]
    pub(crate) output: Format,
}

/// `crm status`.
#[derive(Debug, Args)]
pub(crate) struct StatusArgs {
    /// Inactive resources too (they always are shown; kept for habit).
    #[arg(short = 'r', long)]
    pub(crate) inactive: bool,
    /// By node.
    #[arg(short = 'n', long)]
    pub(crate) by_node: bool,
    /// Output.
    #[arg(short, long, value_enum, default_value_t)]
    pub(crate) output: Format,
    /// crmsh's words.
    #[arg(value_enum, hide_possible_values = true)]
    pub(crate) words: Vec<StatusWord>,
}

/// crmsh's words after `crm status`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum StatusWord {
    /// By node.
    Bynode,
    /// Inactive too.
    Inactive,
    /// Everything.
    Full,
    /// Fail counts (always shown).
    Failcounts,
}

/// `crm configure`.
#[derive(Debug, Args)]
#[command(
    after_help = "Without words: interactive on a terminal, else statements from standard input.\n\
    Statements: primitive group clone ms location colocation order property rsc_defaults op_defaults node volume\n\
    monitor delete modgroup rename set. Commands: show [ID..|changed] verify lint diff commit refresh\n\
    load update|replace FILE, save FILE, edit, quit. One statement as words is committed at once."
)]
pub(crate) struct ConfigureArgs {
    /// Read statements from FILE instead.
    #[arg(short = 'f', long = "file", value_name = "FILE")]
    pub(crate) file: Option<PathBuf>,
    /// One statement or command.
    #[arg(trailing_var_arg = true, allow_hyphen_values = true, value_name = "WORDS")]
    pub(crate) words: Vec<String>,
}

/// Waiting for the cluster to have done it.
#[derive(Debug, Clone, Copy, Args)]
pub(crate) struct WaitArgs {
    /// Wait until the cluster has done it.
    #[arg(long)]
    pub(crate) wait: bool,
    /// How long to wait at most.
    #[arg(long, value_parser = duration_ms, default_value = "60s", value_name = "TIME")]
    pub(crate) timeout: u64,
}

/// `crm node`.
#[derive(Debug, Subcommand)]
pub(crate) enum NodeCmd {
    /// Move everything off a node; it stays a member. Works on dead nodes too.
    Standby(NodeArgs),
    /// Let a node run resources again.
    Online(NodeArgs),
    /// Leave what runs on a node alone: no action there.
    Maintenance(NodeArgs),
    /// End of maintenance.
    Ready(NodeArgs),
    /// Cut a node off, with the fence devices; or say that it is off (`--confirm`).
    Fence(FenceArgs),
    /// Configured nodes and their attributes.
    #[command(visible_alias = "list")]
    Show {
        /// Only this one.
        node: Option<String>,
    },
}

/// `crm disarm`.
#[derive(Debug, Args)]
#[command(
    after_help = "It ends by itself, whatever happens. A node that loses its quorum meanwhile does what no-quorum-policy says:\n\
    it cannot know whether the cluster has been armed again. `crm node fence` works all the same."
)]
pub(crate) struct DisarmArgs {
    /// How long: `30min`, `1h`.
    #[arg(long = "for", value_parser = duration_ms, value_name = "TIME")]
    pub(crate) span: u64,
    /// Why; shown in the status.
    #[arg(long, value_name = "TEXT")]
    pub(crate) reason: Option<String>,
}

/// `crm fence test`.
#[derive(Debug, Args)]
#[command(
    after_help = "Without --yes no node is touched: each device is asked whether it is there (monitor) and sees the node (status).\n\
    On a terminal it then asks whether to reboot the node for real; elsewhere --yes says so."
)]
pub(crate) struct FenceTestArgs {
    /// The node.
    pub(crate) node: String,
    /// Only this device.
    #[arg(long, value_name = "DEVICE")]
    pub(crate) device: Option<String>,
    /// Then reboot the node for real: it is cut off without a shutdown, and what runs there is started elsewhere.
    #[arg(long)]
    pub(crate) yes: bool,
    /// How long to wait for the reboot at most.
    #[arg(long, value_parser = duration_ms, default_value = "120s", value_name = "TIME")]
    pub(crate) timeout: u64,
}

/// `crm fence setup`.
#[derive(Debug, Args)]
#[command(
    after_help = "Without AGENT: lists the agents installed here. On a terminal it asks for what is missing.\n\
    The device is asked whether it is there before anything is written.\n\
    Example: crm fence setup fence_ipmilan ip=10.0.0.9 username=crm password=... lanplus=1 --for delta"
)]
pub(crate) struct FenceSetupArgs {
    /// The agent, `fence_ipmilan`.
    pub(crate) agent: Option<String>,
    /// Its parameters.
    #[arg(value_name = "NAME=VALUE")]
    pub(crate) params: Vec<String>,
    /// The node that it fences (`pcmk_host_list`); several times for several nodes.
    #[arg(long = "for", value_name = "NODE")]
    pub(crate) nodes: Vec<String>,
    /// Id of the device; made of the agent's name without it.
    #[arg(long)]
    pub(crate) id: Option<String>,
    /// Also switch fencing on (`stonith-enabled=true`).
    #[arg(long)]
    pub(crate) enable: bool,
}

/// `crm fence`.
#[derive(Debug, Subcommand)]
pub(crate) enum FenceCmd {
    /// Ask the devices of a node whether they work; with `--yes`, reboot it for real.
    Test(FenceTestArgs),
    /// Make a fence device: choose an agent, give its parameters, try it, write it.
    Setup(FenceSetupArgs),
    /// Which devices reach which nodes, what is under way, what has been done and why.
    Status {
        /// Output.
        #[arg(short, long, value_enum, default_value_t)]
        output: Format,
    },
}

/// What is to be done to a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum FenceAction {
    /// Switch it off.
    Off,
    /// Switch it off and on.
    Reboot,
    /// Give it its access back.
    On,
}

/// `crm node fence`.
#[derive(Debug, Args)]
pub(crate) struct FenceArgs {
    /// The node.
    pub(crate) node: String,
    /// What to do; `stonith-action` without it.
    #[arg(long, value_enum)]
    pub(crate) action: Option<FenceAction>,
    /// Do nothing: I have seen that the node is off. Said of a node that runs, this destroys data.
    #[arg(long, conflicts_with = "action")]
    pub(crate) confirm: bool,
    /// How long to wait at most.
    #[arg(long, value_parser = duration_ms, default_value = "120s", value_name = "TIME")]
    pub(crate) timeout: u64,
}

/// Which node.
#[derive(Debug, Args)]
pub(crate) struct NodeArgs {
    /// The node; this one without it.
    pub(crate) node: Option<String>,
    #[command(flatten)]
    pub(crate) wait: WaitArgs,
}

/// `crm resource`.
#[derive(Debug, Subcommand)]
pub(crate) enum ResourceCmd {
    /// Let it run (`target-role=Started`).
    Start(ResourceArgs),
    /// Stop it (`target-role=Stopped`).
    Stop(ResourceArgs),
    /// Stop it, wait, start it as it was, wait.
    Restart(ResourceArgs),
    /// Let a promotable resource be promoted (`target-role=Promoted`).
    Promote(ResourceArgs),
    /// Keep a promotable resource unpromoted (`target-role=Unpromoted`).
    Demote(ResourceArgs),
    /// Let the cluster manage it (`is-managed=true`).
    Manage(ResourceArgs),
    /// Keep the cluster's hands off it (`is-managed=false`).
    Unmanage(ResourceArgs),
    /// Forget failures and look again at what runs.
    #[command(visible_alias = "refresh")]
    Cleanup {
        /// The resource; all with failures without it.
        resource: Option<String>,
        /// Only on this node.
        node: Option<String>,
        #[command(flatten)]
        wait: WaitArgs,
    },
    /// Where resources run.
    #[command(visible_aliases = ["show", "list", "locate"])]
    Status {
        /// Only this one.
        resource: Option<String>,
        /// Output.
        #[arg(short, long, value_enum, default_value_t)]
        output: Format,
    },
}

/// Which resource.
#[derive(Debug, Args)]
pub(crate) struct ResourceArgs {
    /// The resource: a primitive, group or clone.
    pub(crate) resource: String,
    #[command(flatten)]
    pub(crate) wait: WaitArgs,
}

/// `crm volume`.
#[derive(Debug, Subcommand)]
pub(crate) enum VolumeCmd {
    /// Make a replicated volume.
    Create(VolumeCreate),
    /// Role, disk, peers, bytes out of sync: as this node sees it.
    #[command(visible_alias = "show")]
    Status {
        /// Only this one.
        name: Option<String>,
        /// Output.
        #[arg(short, long, value_enum, default_value_t)]
        output: Format,
    },
    /// End a split brain: throw away the changes of one node.
    Resolve {
        /// The volume.
        name: String,
        /// Node whose changes are thrown away.
        #[arg(long, value_name = "NODE")]
        discard: String,
    },
}

/// `crm volume create`.
#[derive(Debug, Args)]
pub(crate) struct VolumeCreate {
    /// Name, as `drbd_resource=NAME` refers to it.
    pub(crate) name: String,
    /// Usable size: `1G`, `512MiB`, bytes.
    #[arg(value_parser = size_bytes)]
    pub(crate) size: u64,
    /// A replica: the node and its backing block device or file. The first one has the data when they are not equal.
    #[arg(long = "replica", value_name = "NODE:DISK", required = true, value_parser = replica)]
    pub(crate) replicas: Vec<crm_core::cib::Replica>,
    /// Device path shown to the system; default `/dev/crm/by-name/NAME`.
    #[arg(long)]
    pub(crate) device: Option<String>,
    /// The replicas are equal already (new or empty disks): no first sync.
    #[arg(long)]
    pub(crate) assume_clean: bool,
    /// TCP port of the data plane; default the lowest free one.
    #[arg(long)]
    pub(crate) port: Option<u16>,
    #[command(flatten)]
    pub(crate) wait: WaitArgs,
}

/// `crm cluster`.
#[derive(Debug, Subcommand)]
pub(crate) enum ClusterCmd {
    /// Found a cluster with this node as its first member.
    Init {
        /// The cluster's name.
        #[arg(long)]
        name: String,
        #[command(flatten)]
        here: HereArgs,
    },
    /// Join this node to a cluster.
    Join {
        /// A member's `HOST:PORT`.
        peer: String,
        /// Token from `crm cluster token` on a member.
        #[arg(long)]
        token: String,
        /// Join as a witness: it votes, and runs no resources.
        #[arg(long)]
        witness: bool,
        #[command(flatten)]
        here: HereArgs,
    },
    /// Remove a node for good. It comes back only with a new token, as a new member.
    #[command(
        after_help = "Refused while the node runs something (`crm node standby NODE --wait` first), has a replica of a volume,\n\
        or is needed for the quorum. --force is for a node that is off and stays off: what it was last known to run does not count.\n\
        What names the node (locations, fencing levels) goes with it; `crm log` has the version before."
    )]
    Remove {
        /// The node.
        node: String,
        /// The node is off and stays off: remove it whatever it was last known to run.
        #[arg(long)]
        force: bool,
    },
    /// This node leaves the cluster, and its crmd ends. Drain it first: `crm node standby --wait`.
    Leave,
    /// Give this node other addresses; nothing stops. To be run on the node itself, which must have the new addresses already.
    #[command(
        after_help = "All addresses are given, also those that stay. The node listens at the new ones, writes them to node.yaml, tells the\n\
        cluster, and then lets go of the old ones. A node with a replica of a volume keeps the host of its first address."
    )]
    Address {
        /// The node: this one.
        node: String,
        /// `HOST:PORT` at which the other nodes reach it.
        address: String,
        /// Its `HOST:PORT` on a further network; once for each.
        #[arg(long = "link", value_name = "HOST:PORT")]
        links: Vec<String>,
    },
    /// Give nodes a new key and certificate; nothing stops, and the old certificate is revoked.
    Rotate {
        /// The node.
        #[arg(required_unless_present = "all")]
        node: Option<String>,
        /// All members, one after the other.
        #[arg(long, conflicts_with = "node")]
        all: bool,
    },
    /// Make a token with which a node may join.
    Token {
        /// How long it is good for.
        #[arg(long, value_parser = duration_ms, default_value = "1h", value_name = "TIME")]
        ttl: u64,
    },
    /// Go on without the other voters, in a disaster. The others must be off: `crm node fence NODE --confirm`.
    Force {
        /// Go on though the others may live and have gone on themselves. Two clusters may come of it: `crm cluster merge` makes one of them again.
        #[arg(long)]
        accept_divergence: bool,
    },
    /// End the wait of `wait_for_all` on this node, and on those that see it: the missing are known to be off.
    Unblock,
    /// Two nodes that both went on by force: show how their configurations differ; with --keep make one cluster of them again.
    #[command(
        after_help = "Without --keep nothing is changed. Objects that only one side has changed come with the merge; where both have, somebody decides.\n\
        --keep has to be run on NODE: the merged configuration is committed there; the other node stops what it runs, keeps a copy of its\n\
        line in given-up/ of its data directory and joins again by itself, as another voter. Data of volumes are not merged: `crm volume status`."
    )]
    Merge(MergeArgs),
    /// Members, mode, leader.
    Status {
        /// Output.
        #[arg(short, long, value_enum, default_value_t)]
        output: Format,
    },
}

/// One of two lines, as seen from this node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Word {
    /// This node's.
    Ours,
    /// The other node's.
    Theirs,
}

/// `crm cluster merge`.
#[derive(Debug, Args)]
pub(crate) struct MergeArgs {
    /// Keep the line of this node (the one it is run on); the other node gives its own up.
    #[arg(long, value_name = "NODE")]
    pub(crate) keep: Option<String>,
    /// Whose word counts where both have changed an object.
    #[arg(long, value_enum)]
    pub(crate) prefer: Option<Word>,
    /// Whose word counts for one object, as `theirs:ID`; may be given again.
    #[arg(long, value_parser = taken, value_name = "SIDE:ID")]
    pub(crate) take: Vec<(Word, String)>,
    /// Do it without asking.
    #[arg(long, requires = "keep")]
    pub(crate) yes: bool,
}

fn taken(text: &str) -> Result<(Word, String), String> {
    let wrong = || format!("`{text}` is not ours:ID or theirs:ID");
    let (side, object) = text.split_once(':').ok_or_else(wrong)?;
    let side = Word::from_str(side, false).map_err(|_| wrong())?;
    Ok((side, object.to_owned()))
}

/// This node, for `init` and `join`.
#[derive(Debug, Args)]
pub(crate) struct HereArgs {
    /// This node's name; the host name without it.
    #[arg(long)]
    pub(crate) node: Option<String>,
    /// `HOST:PORT` at which the other nodes reach this one.
    #[arg(long)]
    pub(crate) address: Option<String>,
    /// Its `HOST:PORT` on a further network; once for each. Link i of a node talks to link i of the others.
    #[arg(long = "link", value_name = "HOST:PORT")]
    pub(crate) links: Vec<String>,
}

/// `crm apply`.
#[derive(Debug, Args)]
pub(crate) struct ApplyArgs {
    /// The file; `-` = standard input.
    pub(crate) file: PathBuf,
    /// Show what would change, change nothing.
    #[arg(long)]
    pub(crate) dry_run: bool,
    #[command(flatten)]
    pub(crate) wait: WaitArgs,
}

fn duration_ms(text: &str) -> Result<u64, String> {
    crm_core::cib::parse_duration_ms(text)
        .ok_or_else(|| format!("`{text}` is no duration (as in 60s, 500ms, 5min, 1h)"))
}

fn yes_or_no(text: &str) -> Result<bool, String> {
    crm_core::cib::parse_bool(text).ok_or_else(|| format!("`{text}` is neither yes nor no"))
}

fn size_bytes(text: &str) -> Result<u64, String> {
    crm_core::text::parse_size(text)
        .ok_or_else(|| format!("`{text}` is no size (as in 512M, 1GiB, 1073741824)"))
}

fn replica(text: &str) -> Result<crm_core::cib::Replica, String> {
    match text.split_once(':') {
        Some((node, disk)) if !node.is_empty() && disk.starts_with('/') => {
            Ok(crm_core::cib::Replica { node: node.to_owned(), disk: disk.to_owned() })
        }
        _ => Err(format!("`{text}` is not NODE:DISK with an absolute path")),
    }
}
