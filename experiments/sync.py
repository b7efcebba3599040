"""Bring MLflow up to date from the journals of runs that nobody is training."""

from collections.abc import Collection
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from capsnet.errors import InputError, brief
from experiments import stores
from experiments.client import FAULTS
from experiments.journal import BusyError, Journal, journals
from experiments.record import Ending, now
from experiments.runlog import GoneError, RunLog
from experiments.tracking import Store


@dataclass
class Synced:
    """What was found."""

    told: int = 0  # runs of which MLflow learned something
    busy: int = 0  # runs that are being trained, and tell MLflow themselves
    faults: list[str] = field(default_factory=list)  # a line for each run that MLflow couldn't be told of
    unreadable: list[str] = field(default_factory=list)  # a line for each journal that this version can't read


def sync(store: Store, checkpoints: Path, *, ended: bool = False, only: Collection[Path] | None = None) -> Synced:
    """Push what MLflow doesn't know, and delete the journals that it makes superfluous.

    Args:
        store: the experiment's.
        checkpoints: the experiment's journals.
        ended: only runs that have ended; of others MLflow is told by whoever goes on with them.
        only: folders of journals; all if None.
    """
    found, away = Synced(), ""
    if any(True for _ in journals(checkpoints)) and not store.answers():  # a push would try for a minute
        away = f"{store.shown} doesn't answer"
    for journal in journals(checkpoints):
        if only is not None and journal.folder not in only:
            continue
        name = journal.folder.name
        try:
            with journal.held():
                name = journal.record.name if journal.begun else name
                if away and journal.begun and not journal.record.told:
                    found.faults.append(f"{name}: {away}")
                else:
                    found.told += _push(store, journal, ended)
        except BusyError:
            found.busy += 1
        except GoneError:
            with suppress(BusyError), journal.held():  # whoever deleted the run wants it no more
                journal.remove()
        except InputError as error:
            found.unreadable.append(str(error))
        except FAULTS as error:
            said = stores.shown(brief(error))
            found.faults.append(f"{name} (its journal is {journal.folder}): {said}")
            away = "" if store.answers() else f"{store.shown} doesn't answer"  # and won't for the others
    return found


def _push(store: Store, journal: Journal, ended: bool) -> bool:
    if not journal.begun:
        journal.remove()
        return False
    ending, news = journal.record.ending, not journal.record.told
    if ending is None and ended:
        return False
    if ending is None:  # whoever trained it died without a word
        ending = Ending("KILLED", now())
        journal.update(ending=ending)
    if news:
        RunLog(store, journal, monitored=False).push()
    if ending.settled:
        journal.remove()
    return news
