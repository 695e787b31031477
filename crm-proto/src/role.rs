//! Who may ask what of `crmd` on its local socket (ADR-0015). Root and the daemon's own user may everything; unix groups get one of three
//! roles by the properties `acl-read-only-groups`, `acl-operator-groups` and `acl-admin-groups`.

use crate::local::{Reply, Request};
use crm_core::cib::{Cib, Resource};
use crm_core::fencing::is_secret;
use crm_core::store::Edit;
use serde::{Deserialize, Serialize};
use std::fmt;
use std::sync::Arc;

/// What a user may do. Ordered: who may more may less.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Role {
    /// See everything but passwords.
    ReadOnly,
    /// Also standby, maintenance, start, stop, cleanup.
    Operator,
    /// Everything.
    Admin,
}

impl Role {
    const ALL: [Self; 3] = [Self::ReadOnly, Self::Operator, Self::Admin];

    /// The property that names the groups with this role, separated by blanks or commas.
    #[must_use]
    pub const fn property(self) -> &'static str {
        match self {
            Self::ReadOnly => "acl-read-only-groups",
            Self::Operator => "acl-operator-groups",
            Self::Admin => "acl-admin-groups",
        }
    }

    /// The highest role that the configuration gives to a member of these groups.
    #[must_use]
    pub fn of(cib: &Cib, groups: &[String]) -> Option<Self> {
        let named = |role: &Self| {
            let value = cib.properties.get(role.property()).unwrap_or_default();
            let mut words = value.split([' ', ',', '\t']).filter(|word| !word.is_empty());
            words.any(|word| groups.iter().any(|group| group == word))
        };
        Self::ALL.into_iter().rev().find(named)
    }

    /// Whether any group has a role: then others than root may connect.
    #[must_use]
    pub fn given(cib: &Cib) -> bool {
        Self::ALL.iter().any(|role| cib.properties.get(role.property()).is_some())
    }

    /// What a request needs.
    #[must_use]
    pub fn needed(request: &Request) -> Self {
        match request {
            Request::Status
            | Request::Cib
            | Request::WaitIdle { .. }
            | Request::GetAttr { .. }
            | Request::Revision { .. }
            | Request::Fencing
            | Request::Volumes
            | Request::Watch => Self::ReadOnly,
            Request::Edit { edits, .. } if edits.iter().all(everyday) => Self::Operator,
            Request::Cleanup { .. } => Self::Operator,
            Request::Edit { .. }
            | Request::Commit { .. }
            | Request::SetAttr { .. }
            | Request::Token { .. }
            | Request::Fence { .. }
            | Request::Force { .. }
            | Request::Divergence
            | Request::Merge { .. }
            | Request::FenceCheck { .. }
            | Request::RemoveNode { .. }
            | Request::Leave
            | Request::Renew { .. }
            | Request::Relocate { .. }
            | Request::CancelWait
            | Request::Disarm { .. }
            | Request::Block(_) => Self::Admin,
        }
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::ReadOnly => "read-only",
            Self::Operator => "operator",
            Self::Admin => "admin",
        })
    }
}

/// What `crm node standby` and `crm resource stop` and their likes change.
fn everyday(edit: &Edit) -> bool {
    match edit {
        Edit::NodeAttr { name, .. } => matches!(name.as_str(), "standby" | "maintenance"),
        Edit::Meta { name, .. } => matches!(name.as_str(), "target-role" | "is-managed"),
        Edit::AddVolume(_) => false,
    }
}

const HIDDEN: &str = "********";

/// Hides the values of parameters that are passwords by their name.
pub fn hide_secrets(reply: &mut Reply) {
    match reply {
        Reply::Status(status) => {
            hide(Arc::make_mut(&mut status.state.cib));
            for revision in &mut status.state.revisions {
                hide(Arc::make_mut(&mut Arc::make_mut(revision).cib));
            }
        }
        Reply::Cib { cib, .. } => hide(cib),
        Reply::Revision(Some(revision)) => hide(Arc::make_mut(&mut revision.cib)),
        Reply::Revision(None)
        | Reply::Outcome(_)
        | Reply::Waited { .. }
        | Reply::Attr(_)
        | Reply::Token(_)
        | Reply::Fenced(_)
        | Reply::Fencing { .. }
        | Reply::FenceAnswer(_)
        | Reply::Said(_)
        // For admins only.
        | Reply::Divergence(_)
        | Reply::Block(_)
        | Reply::Refused { .. } => {}
    }
}

fn hide(cib: &mut Cib) {
    let ids: Vec<String> = cib.primitives().into_iter().map(|p| p.id.clone()).collect();
    for id in ids {
        let Some(primitive) = cib.primitive_mut(&id) else { continue };
        for pair in primitive.params.pairs.iter_mut().filter(|pair| is_secret(&pair.name)) {
            pair.value = pair.value.as_ref().map(|_| HIDDEN.to_owned());
        }
    }
    for resource in &mut cib.resources {
        if let Resource::Clone(clone) = resource {
            for pair in clone.params.pairs.iter_mut().filter(|pair| is_secret(&pair.name)) {
                pair.value = pair.value.as_ref().map(|_| HIDDEN.to_owned());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crm_core::text::{Session, read};

    fn cib(text: &str) -> Cib {
        let mut session = Session::new(Cib::default(), 0);
        read("t", text, &mut session).unwrap();
        session.cib().clone()
    }

    fn groups(names: &str) -> Vec<String> {
        names.split(' ').map(str::to_owned).collect()
    }

    #[test]
    fn the_highest_role_of_all_groups_counts_and_no_group_is_no_role() {
        let cib = cib(
            "property acl-read-only-groups=\"staff watch\" acl-operator-groups=ops acl-admin-groups=\"wheel,sudo\"\n",
        );
        let cases = [
            ("users", None),
            ("watch", Some(Role::ReadOnly)),
            ("staff ops", Some(Role::Operator)),
            ("ops sudo", Some(Role::Admin)),
            ("op", None),
        ];
        for (names, role) in cases {
            assert_eq!(Role::of(&cib, &groups(names)), role, "{names}");
        }
        assert_eq!(Role::of(&Cib::default(), &groups("wheel ops")), None);
        assert!(Role::given(&cib) && !Role::given(&Cib::default()));
    }

    #[test]
    fn an_operator_changes_what_is_everyday_and_nothing_else() {
        let node = |name: &str| Edit::NodeAttr {
            node: "alpha".into(),
            name: name.into(),
            value: Some("on".into()),
        };
        let meta =
            |name: &str| Edit::Meta { resource: "web".into(), name: name.into(), value: None };
        let edit = |edits| Request::Edit { edits, message: String::new() };
        let cases = [
            (Request::Status, Role::ReadOnly),
            (Request::Watch, Role::ReadOnly),
            (Request::Cleanup { resource: None, node: None }, Role::Operator),
            (edit(vec![node("standby")]), Role::Operator),
            (edit(vec![meta("target-role"), meta("is-managed")]), Role::Operator),
            (edit(vec![meta("target-role"), meta("priority")]), Role::Admin),
            (edit(vec![node("site")]), Role::Admin),
            (Request::Token { ttl_s: 1 }, Role::Admin),
            (Request::Leave, Role::Admin),
            (Request::Divergence, Role::Admin),
            (Request::SetAttr { name: "a".into(), value: None }, Role::Admin),
        ];
        for (request, role) in cases {
            assert_eq!(Role::needed(&request), role, "{request:?}");
        }
    }

    #[test]
    fn passwords_are_hidden_and_the_rest_is_not() {
        let cib = cib("primitive p stonith:fence_x params ip=10.0.0.9 passwd=geheim login=root\n");
        let mut reply = Reply::Cib { version: 1, cib: Box::new(cib) };
        hide_secrets(&mut reply);
        let Reply::Cib { cib, .. } = reply else { panic!("another reply") };
        let params = &cib.primitive("p").unwrap().params;
        assert_eq!(params.get("passwd"), Some(HIDDEN));
        assert_eq!((params.get("ip"), params.get("login")), (Some("10.0.0.9"), Some("root")));
    }
}
