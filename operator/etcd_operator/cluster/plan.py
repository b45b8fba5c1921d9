"""What to do next about an EtcdCluster, judged from one observation.

Pure: no clock but `seen.at`, no I/O, no memory of earlier rounds. Whatever a crash left half done shows in the
observation, so finishing it is just another rule. Rules are asked in order, and the first that speaks wins; the
order is the design, so it stands in one place where it can be read aloud.
"""

from collections.abc import Callable

from etcd_operator.cluster import (
    bootstrap_rules,
    client_rules,
    corruption_rules,
    growth_rules,
    healing_rules,
    membership_rules,
    object_rules,
    old_data_rules,
    proxy_rules,
    recovery_rules,
    restart_rules,
    rotation_rules,
)
from etcd_operator.cluster.judged import Judged
from etcd_operator.cluster.steps import Plan

Rule = Callable[[Judged], Plan | None]

RULES: tuple[Rule, ...] = (
    object_rules.release_volumes,
    old_data_rules.take_away_cleaners,
    object_rules.wait_when_paused,
    object_rules.wait_for_leftovers,
    object_rules.refuse_disputed_records,
    recovery_rules.recover,
    bootstrap_rules.refuse_to_found_on_bad_input,
    bootstrap_rules.record_bootstrap,
    bootstrap_rules.remove_abandoned_members,
    bootstrap_rules.refound_after_change,
    bootstrap_rules.refound_when_stuck,
    object_rules.record_volumes,
    object_rules.lay_foundation,
    object_rules.own_volumes,
    object_rules.issue_certificates,
    membership_rules.replace_member_without_data,
    healing_rules.replace_member_of_a_lost_node,
    corruption_rules.replace_corrupt_member,
    corruption_rules.disarm_alarms_of_removed_members,
    growth_rules.renew_volumes_of_missing_members,
    membership_rules.add_missing_members,
    membership_rules.remove_members_scaled_away,
    object_rules.keep_objects_right,
    object_rules.refresh_mounted_files,
    object_rules.refresh_certificates,
    healing_rules.move_volumes_of_removed_members,
    healing_rules.free_names_of_stranded_pods,
    healing_rules.replace_unwell_member,
    membership_rules.restart_pods_of_older_members,
    object_rules.shield_from_foreign_members,
    object_rules.publish_access,
    membership_rules.promote_learners,
    membership_rules.retire_volumes_of_removed_members,
    object_rules.record_members_on_volumes,
    healing_rules.forget_what_was_given_up,
    restart_rules.restart_in_order,
    restart_rules.fill_log,
    rotation_rules.rotate_authorities,
    object_rules.restart_members_of_a_lost_authority,
    object_rules.restart_next_member_that_refuses_the_operator,
    object_rules.nudge_the_controller_of_missing_pods,
    growth_rules.grow_volumes,
    growth_rules.renew_stateful_set_for_larger_volumes,
    growth_rules.replace_member_on_small_volume,
    old_data_rules.delete_old_data,
    proxy_rules.keep_proxy_right,
    proxy_rules.remove_proxy,
    proxy_rules.keep_member_services,
    proxy_rules.keep_network_policies,
    client_rules.keep_client_secrets,
    client_rules.hold_for_copies,
    client_rules.deliver_copies,
    client_rules.let_go_without_copies,
    bootstrap_rules.wait_for_bootstrap,
    growth_rules.wait_for_growth,
    membership_rules.wait_for_membership,
    restart_rules.wait_for_restart,
    rotation_rules.wait_for_rotation,
    object_rules.wait_for_members,
)


def plan(judged: Judged) -> Plan:
    """The next steps for this cluster, with the name of the rule that spoke."""
    for rule in RULES:
        if spoken := rule(judged):
            return Plan(steps=spoken.steps, waiting=spoken.waiting, rule=rule.__name__)
    return Plan(rule="at_rest")
