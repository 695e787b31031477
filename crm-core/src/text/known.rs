//! Names that the configuration language knows: statements, cluster properties, meta attributes, operation attributes.

/// Statements that are read.
pub(crate) const STATEMENTS: &[&str] = &[
    "node",
    "primitive",
    "group",
    "clone",
    "ms",
    "master",
    "bundle",
    "location",
    "colocation",
    "collocation",
    "order",
    "fencing_topology",
    "property",
    "rsc_defaults",
    "op_defaults",
    "volume",
    "monitor",
    "delete",
    "modgroup",
    "rename",
    "set",
];

/// The name of the one object that holds the fencing levels.
pub(crate) const FENCING: &str = "fencing_topology";

/// Parameters of fencing devices that the cluster reads itself (the likely ones; `crate::fencing::is_own_parameter` knows all).
pub(crate) const DEVICE_PARAMETERS: &[&str] = &[
    "pcmk_action_limit",
    "pcmk_delay_base",
    "pcmk_delay_max",
    "pcmk_host_argument",
    "pcmk_host_check",
    "pcmk_host_list",
    "pcmk_host_map",
    "pcmk_monitor_timeout",
    "pcmk_off_action",
    "pcmk_off_retries",
    "pcmk_off_timeout",
    "pcmk_reboot_action",
    "pcmk_reboot_retries",
    "pcmk_reboot_timeout",
];

/// Statements of the crm shell that are not read yet, with what to do instead.
pub(crate) const UNSUPPORTED: &[(&str, &str)] = &[
    ("rsc_template", "write its parameters and operations out in each primitive"),
    ("rsc_ticket", "tickets (multi-site clusters) are not supported"),
    ("tag", "name the resources one by one, or use a group"),
    ("role", "access control lists are not supported"),
    ("acl_target", "access control lists are not supported"),
    ("acl_group", "access control lists are not supported"),
    ("user", "access control lists are not supported"),
    ("alert", "watch the cluster with `crm watch` instead"),
    ("xml", "write the object as a statement"),
];

/// Commands of the session, carried out by the caller.
pub(crate) const VERBS: &[&str] = &[
    "show",
    "commit",
    "verify",
    "quit",
    "bye",
    "exit",
    "end",
    "up",
    "back",
    "cd",
    "ls",
    "help",
    "edit",
    "save",
    "load",
    "refresh",
    "erase",
    "ptest",
    "simulate",
    "plan",
    "graph",
    "diff",
    "lint",
    "export",
    "status",
    "filter",
    "validate-all",
    "schema",
    "upgrade",
    "get_property",
    "default-timeouts",
    "rsctest",
    "ra",
    "cib",
    "cibstatus",
    "template",
    "history",
    "configure",
];

/// Attributes of an operation itself; all others are its parameters (`op_params`).
pub(crate) const OP_ATTRIBUTES: &[&str] = &[
    "interval",
    "timeout",
    "requires",
    "on-fail",
    "start-delay",
    "interval-origin",
    "role",
    "record-pending",
    "enabled",
    "description",
];

/// Cluster properties.
pub(crate) const PROPERTIES: &[&str] = &[
    "acl-admin-groups",
    "acl-operator-groups",
    "acl-read-only-groups",
    "allow_downscale",
    "auto_tie_breaker",
    "auto_tie_breaker_node",
    "batch-limit",
    "cluster-delay",
    "cluster-infrastructure",
    "cluster-ipc-limit",
    "cluster-name",
    "cluster-recheck-interval",
    "concurrent-fencing",
    "dc-deadtime",
    "dc-version",
    "election-timeout",
    "enable-acl",
    "enable-startup-probes",
    "expected_votes",
    "expected_votes_tracking",
    "fence-reaction",
    "fencing-action",
    "fencing-enabled",
    "fencing-max-attempts",
    "fencing-reaction",
    "fencing-timeout",
    "fencing-watchdog-timeout",
    "have-watchdog",
    "is-managed-default",
    "join-finalization-timeout",
    "join-integration-timeout",
    "last-lrm-refresh",
    "last_man_standing",
    "last_man_standing_window",
    "load-threshold",
    "maintenance-mode",
    "migration-limit",
    "no-quorum-policy",
    "node-action-limit",
    "node-health-base",
    "node-health-green",
    "node-health-red",
    "node-health-strategy",
    "node-health-yellow",
    "node-pending-timeout",
    "pe-error-series-max",
    "pe-input-series-max",
    "pe-warn-series-max",
    "placement-strategy",
    "priority-fencing-delay",
    "remove-after-stop",
    "shutdown-escalation",
    "shutdown-lock",
    "shutdown-lock-limit",
    "start-failure-is-fatal",
    "startup-fencing",
    "stonith-action",
    "stonith-enabled",
    "stonith-max-attempts",
    "stonith-timeout",
    "stonith-watchdog-timeout",
    "stop-all-resources",
    "stop-orphan-actions",
    "stop-orphan-resources",
    "stop-removed-actions",
    "stop-removed-resources",
    "symmetric-cluster",
    "transition-delay",
    "two_node",
    "wait_for_all",
];

/// Properties whose value is a duration.
pub(crate) const DURATION_PROPERTIES: &[&str] = &[
    "cluster-delay",
    "cluster-recheck-interval",
    "dc-deadtime",
    "election-timeout",
    "fencing-timeout",
    "join-finalization-timeout",
    "join-integration-timeout",
    "node-pending-timeout",
    "priority-fencing-delay",
    "shutdown-escalation",
    "shutdown-lock-limit",
    "stonith-timeout",
    "transition-delay",
];

/// Properties whose value is a boolean.
pub(crate) const BOOLEAN_PROPERTIES: &[&str] = &[
    "concurrent-fencing",
    "enable-acl",
    "enable-startup-probes",
    "fencing-enabled",
    "is-managed-default",
    "maintenance-mode",
    "remove-after-stop",
    "shutdown-lock",
    "start-failure-is-fatal",
    "startup-fencing",
    "stonith-enabled",
    "stop-all-resources",
    "stop-orphan-actions",
    "stop-orphan-resources",
    "symmetric-cluster",
];

/// Values of `no-quorum-policy`.
pub(crate) const NO_QUORUM_POLICIES: &[&str] =
    &["stop", "freeze", "ignore", "suicide", "demote", "fence"];

/// Meta attributes of any resource.
pub(crate) const META: &[&str] = &[
    "allow-migrate",
    "allow-unhealthy-nodes",
    "container-attribute-target",
    "critical",
    "description",
    "failure-timeout",
    "is-managed",
    "maintenance",
    "migration-threshold",
    "multiple-active",
    "priority",
    "provides",
    "remote-addr",
    "remote-allow-migrate",
    "remote-connect-timeout",
    "remote-node",
    "remote-port",
    "requires",
    "resource-stickiness",
    "restart-type",
    "target-role",
];

/// Meta attributes of clones, promotable ones included.
pub(crate) const CLONE_META: &[&str] = &[
    "clone-max",
    "clone-min",
    "clone-node-max",
    "globally-unique",
    "interleave",
    "master-max",
    "master-node-max",
    "notify",
    "ordered",
    "promotable",
    "promoted-max",
    "promoted-node-max",
];

/// Meta attributes of groups.
pub(crate) const GROUP_META: &[&str] = &["ordered", "collocated"];

/// Values of `target-role` and of an operation's or constraint's `role`.
pub(crate) const ROLES: &[&str] =
    &["Started", "Stopped", "Promoted", "Unpromoted", "Master", "Slave"];

/// Words that are scores.
pub(crate) const SCORE_WORDS: &[&str] =
    &["inf", "-inf", "+inf", "infinity", "-infinity", "mandatory", "advisory"];
