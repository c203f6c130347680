"""Which instances a run answers, and that an interrupted run keeps its list."""

from cxr.archive.worklist import Worklist, kept


def test_instances_with_results_are_left_out_and_a_list_is_kept(tmp_path):
    made = Worklist.of("request", ["a", "b", "c"], {"b"}.__contains__)
    assert made.todo == ["a", "c"] and made.found == 3
    assert kept(tmp_path, "request") is None
    made.keep(tmp_path)
    assert kept(tmp_path, "request") == made and kept(tmp_path, "another") is None


def test_the_list_counts_in_the_plan_not_what_is_left_of_it():
    """Otherwise the same command would take its own complete output for that of another one."""
    before = Worklist.of("request", ["a", "b"], lambda _: False)
    after = Worklist.of("request", ["a", "b"], lambda _: True)
    assert before.listed == after.listed and not after.todo
    assert before.listed != Worklist.of("request", ["a"], lambda _: False).listed
    assert before.listed != Worklist.of("other", ["a", "b"], lambda _: False).listed
