"""Which e2e tests show at one more moment, on one more version or under one more fault what another test shows.

`hack/test` leaves them out, as they take as long as all others; `hack/test thorough` runs them too. What a change
touches is to be run by name before it is handed in, these among them.
"""

#: By name, with the parameters where only some of them are meant.
THOROUGH = frozenset(
    {
        # a bootstrap disturbed by one thing alone; everything at once and the operator's death are always tried
        "test_a_bootstrap_that_is_disturbed_ends_in_a_healthy_cluster[pods killed]",
        "test_a_bootstrap_that_is_disturbed_ends_in_a_healthy_cluster[processes killed]",
        "test_a_bootstrap_that_is_disturbed_ends_in_a_healthy_cluster[objects and status deleted]",
        # adoption
        "test_more_members_than_the_new_spec_wants_are_adopted_before_some_of_them_go",
        "test_it_may_be_applied_again_before_the_old_one_is_gone",
        "test_volumes_that_nobody_vouches_for_are_not_served",
        # healing
        "test_a_member_whose_node_stays_away_is_replaced_on_another[cut off]",
        "test_a_member_whose_node_object_is_deleted_is_replaced_at_once[is killed]",
        "test_an_operator_killed_while_it_moves_a_member",
        # static-pod API servers: two whole clusters, and each change restarts three API servers one after the other
        "test_kubeadm_sets_up_three_control_planes_on_it_and_members_may_die",
        "test_its_api_servers_use_every_member",
        "test_its_api_servers_follow_members_that_come_and_go",
        "test_a_node_whose_api_server_does_not_come_is_rolled_back_and_named_and_the_others_serve_on",
        "test_a_renewed_certificate_reaches_the_nodes_without_a_restart",
        # membership
        "test_up_down_and_up_at_once_and_down_at_last[Delete]",
        "test_the_leader_is_among_the_members_to_go",
        "test_a_lost_volume[leader]",
        "test_a_volume_that_is_to_go_under_a_member_that_runs",
        "test_an_operator_killed_while_members_leave[Delete]",
        # objects
        "test_the_same_etcd_comes_out_of[StatefulSet deleted, in the foreground]",
        "test_the_same_etcd_comes_out_of[StatefulSet scaled to 1]",
        "test_the_same_etcd_comes_out_of[record taken off]",
        # a lost quorum
        "test_the_operator_is_killed_at_every_stage_of_a_rebuild",
        "test_members_that_cannot_be_asked_are_left_aside_only_when_that_is_accepted[3.5.35]",
        "test_members_that_cannot_be_asked_are_left_aside_only_when_that_is_accepted[3.6.16]",
        # versions
        "test_older_versions[3.6.16]",
        "test_upgrades_one_right_after_the_other[3.6.16-rounds0]",
        # volumes and memory
        "test_an_operator_killed_when_the_stateful_set_is_away",
        "test_the_only_member_waits_for_others_and_then_moves",
        "test_a_member_in_memory_is_replaced_when_its_pod_goes[True]",
        "test_a_container_in_memory_that_is_started_again_has_its_data",
        # the other way to begin a rotation
        "test_authorities_near_their_end_are_replaced_under_load",
    }
)
