-- 0007_coverage_state: epochs being loaded right now lose what their coverage goes on from; load them again.
DROP TABLE coverage_states;
