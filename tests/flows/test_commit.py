"""The tags that say what commit a run is made of."""

from pathlib import Path

from flows.commit import commit_tags
from tests.fixtures.dvc_project import command


def test_tags_name_the_commit_and_whether_files_differ(project: Path) -> None:
    commit = command(project, "git", "rev-parse", "HEAD").strip()
    clean = [f"commit:{commit[:12]}"]
    assert commit_tags(project) == clean

    # What every run leaves is not an edit: the release holds both as they were.
    (project / "dvc.lock").write_text("schema: '2.0'\n")
    (project / "params.yaml").write_text((project / "params.yaml").read_text() + "# set for one run\n")
    assert commit_tags(project) == clean
    command(project, "git", "checkout", "--quiet", "--detach")
    assert commit_tags(project) == clean

    (project / "make.py").write_text("edited")
    assert commit_tags(project) == [*clean, "dirty"]


def test_a_folder_outside_git_has_no_tags(tmp_path: Path) -> None:
    assert commit_tags(tmp_path) == []
