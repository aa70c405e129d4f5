"""An experiment is unwanted when its last open claim has ended, and not before."""

import threading
from itertools import product

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import Connection, Engine

from ci_bot.records import Claim, ClaimKind
from ci_bot.store import begin, claims, experiments
from launcher.state import Progress, State
from tests.integration.store.values import MAIN, PULL, TOPIC, draft

OLD, NEW = "a" * 40, "b" * 40
REPOSITORY = draft().repository_id


def create(connection: Connection, sha: str, claim: Claim, **changes: object) -> int:
    return experiments.create(connection, draft(head_sha=sha, **changes), claim, at=1.0)[0]


def end(connection: Connection, claim: Claim, **only: str) -> list[int]:
    return claims.end(
        connection, repository_id=REPOSITORY, kind=claim.kind, key=claim.key, why="superseded", at=2.0, **only
    )


def test_a_newer_head_ends_the_claims_on_the_older_ones(engine: Engine) -> None:
    with begin(engine) as connection:
        old, new = create(connection, OLD, TOPIC), create(connection, NEW, TOPIC)
        assert end(connection, TOPIC, except_sha=NEW) == [old]
        assert claims.open_for(connection, REPOSITORY, TOPIC.kind, TOPIC.key) == [(new, NEW)]
        assert end(connection, TOPIC, except_sha=NEW) == [], "it is told once"


def test_an_experiment_that_something_else_wants_goes_on(engine: Engine) -> None:
    with begin(engine) as connection:
        experiment_id = create(connection, OLD, TOPIC)
        claims.add(connection, experiment_id, PULL, at=1.0)
        assert end(connection, TOPIC) == []
        assert claims.of_experiment(connection, experiment_id) == [PULL]
        assert end(connection, PULL) == [experiment_id]


def test_lasting_claims_are_ended_by_nothing(engine: Engine) -> None:
    with begin(engine) as connection:
        experiment_id = create(connection, OLD, MAIN)
        assert end(connection, MAIN) == []
        assert claims.open_for(connection, REPOSITORY, MAIN.kind, MAIN.key) == [(experiment_id, OLD)]
        claims.add(connection, experiment_id, TOPIC, at=1.0)
        assert end(connection, TOPIC) == []


def test_a_claim_can_be_ended_for_one_commit_only(engine: Engine) -> None:
    with begin(engine) as connection:
        old = create(connection, OLD, TOPIC)
        create(connection, NEW, TOPIC)
        assert end(connection, TOPIC, only_sha=OLD) == [old]


def test_other_repositories_kinds_and_keys_are_left_alone(engine: Engine) -> None:
    with begin(engine) as connection:
        create(connection, OLD, TOPIC)
        create(connection, OLD, TOPIC, repository_id=5)
        elsewhere = {"repository_id": 6, "kind": TOPIC.kind, "key": TOPIC.key}
        assert claims.end(connection, **elsewhere, why="", at=2.0) == []  # type: ignore[arg-type]
        assert end(connection, Claim(ClaimKind.TAG, TOPIC.key)) == []
        assert end(connection, Claim(TOPIC.kind, "refs/heads/topic2")) == []


def test_what_has_ended_already_is_not_told(engine: Engine) -> None:
    with begin(engine) as connection:
        create(connection, OLD, TOPIC, progress=Progress(state=State.STOPPED))
        assert end(connection, TOPIC) == []
        assert claims.open_for(connection, REPOSITORY, TOPIC.kind, TOPIC.key) == []


def test_a_claim_that_had_ended_is_open_again_when_it_is_made_again(engine: Engine) -> None:
    with begin(engine) as connection:
        experiment_id = create(connection, OLD, PULL)
        claims.add(connection, experiment_id, TOPIC, at=1.0)
        end(connection, PULL)
        claims.add(connection, experiment_id, PULL, at=3.0)
        assert end(connection, TOPIC) == []
        assert end(connection, PULL) == [experiment_id]


def test_two_transactions_that_end_the_last_two_claims_do_not_miss_each_other(engine: Engine) -> None:
    with begin(engine) as connection:
        experiment_id = create(connection, OLD, TOPIC)
        claims.add(connection, experiment_id, PULL, at=1.0)
    told: list[int] = []

    def end_the_other() -> None:
        with begin(engine) as connection:
            told.extend(end(connection, PULL))

    other = threading.Thread(target=end_the_other)
    with begin(engine) as connection:
        told.extend(end(connection, TOPIC))
        other.start()
        other.join(timeout=0.3)  # what must not happen can only be waited for
    other.join()
    assert told == [experiment_id]


CLAIMS = (TOPIC, PULL, MAIN)
STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("add"), st.sampled_from(CLAIMS), st.sampled_from([OLD, NEW])),
        st.tuples(st.just("end"), st.sampled_from(CLAIMS), st.sampled_from([OLD, NEW, None])),
    ),
    max_size=12,
)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(steps=STEPS)
def test_an_experiment_is_told_exactly_when_its_last_claim_ends(
    engine: Engine, steps: list[tuple[str, Claim, str | None]]
) -> None:
    with engine.connect() as connection:  # rolled back: every example starts from nothing
        ids = {sha: create(connection, sha, TOPIC) for sha in (OLD, NEW)}
        model = {(OLD, TOPIC), (NEW, TOPIC)}
        for step, claim, sha in steps:
            if step == "add":
                assert sha is not None
                claims.add(connection, ids[sha], claim, at=1.0)
                model.add((sha, claim))
                continue
            ended = {(at, claim) for at in (OLD, NEW) if at != sha and not claim.lasting} & model
            model -= ended
            unwanted = [
                ids[at] for at, _ in sorted(ended, key=lambda one: one[0]) if not any(at == s for s, _ in model)
            ]
            told = end(connection, claim, except_sha=sha) if sha else end(connection, claim)
            assert told == unwanted
        for sha, claim in product((OLD, NEW), CLAIMS):
            is_open = (ids[sha], sha) in claims.open_for(connection, REPOSITORY, claim.kind, claim.key)
            assert is_open == ((sha, claim) in model)


@pytest.mark.parametrize("claim", [MAIN, TOPIC])
def test_a_claim_made_twice_is_one_claim(engine: Engine, claim: Claim) -> None:
    with begin(engine) as connection:
        experiment_id = create(connection, OLD, claim)
        claims.add(connection, experiment_id, claim, at=9.0)
        assert claims.of_experiment(connection, experiment_id) == [claim]
