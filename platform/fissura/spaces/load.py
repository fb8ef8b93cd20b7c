"""Search space files: found by name or path, read strictly, checked against their recipe as a whole."""

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from fissura.core.errors import SpaceError
from fissura.core.text import nearest
from fissura.spaces import strict_yaml as yaml
from fissura.spaces.check import PROBLEM_EFFORT, Effort, TooMuchToCheck
from fissura.spaces.compile import Parameters
from fissura.spaces.profile import Layer
from fissura.spaces.space import LoadedSpace, Objective, RunAll, SearchSpace, broken_key, objectives_of
from fissura.spaces.wording import problems

if TYPE_CHECKING:
    from fissura.training.experiment import Experiment

Recipes = Mapping[str, Callable[[], "Experiment"]]
OF_THE_SEARCH = ("trials", "sampler", "scheduler")
"""What a profile may change beside the recipe."""


def search_spaces() -> dict[str, Path]:
    """The search spaces that come with fissura, by name."""
    folder = Path(__file__).with_name("papers")
    return {path.stem: path for path in sorted(folder.glob("*.yaml"))}


def load_space(
    name_or_path: str | Path,
    *,
    profile: str | None = None,
    fixed: Mapping[str, Any] | None = None,
    objectives: Sequence[str] = (),
    recipes: Recipes | None = None,
) -> LoadedSpace:
    """The search space of a name (one that comes with fissura) or of a YAML file.

    `fixed` sets paths to values, over the profile's; `objectives` are metrics to take the place of the
    space's own, where there are any; `recipes` are those that a space may name.

    Raises:
        SpaceError: with one line a problem, all at once.
    """
    document = yaml.read(_find(str(name_or_path)))
    loading = _Loading(document, recipes or _recipes(), objectives_of(objectives))
    return loading.load(profile=profile, fixed=fixed or {})


def load_text(
    text: str,
    *,
    source: str,
    profile: str | None = None,
    fixed: Mapping[str, Any] | None = None,
    objectives: Sequence[str] = (),
    recipes: Recipes | None = None,
) -> LoadedSpace:
    """`load_space` of YAML text that came from the file `source`.

    Raises:
        SpaceError: with one line a problem, all at once.
    """
    wanted = objectives_of(objectives)
    document = yaml.parse(text, source=source)
    return _Loading(document, recipes or _recipes(), wanted).load(profile=profile, fixed=fixed or {})


def check_profile(name_or_path: str | Path, profile: str) -> None:
    """Looks whether a search space has a profile, from its text alone: before anything heavy is imported.

    Raises:
        SpaceError: it has not, or there is no such space, or the file is no YAML.
    """
    if profile not in ("auto", "none"):
        document = yaml.read(_find(str(name_or_path)))
        profiles = _mapping(document.plain.get("profiles"))
        if profile not in profiles:
            place = f"{document.source}:{document.line(('profiles',))}"
            raise SpaceError(f"{place}: {_unknown_profile(profile, profiles)}")


def _unknown_profile(profile: str, profiles: Mapping[str, Any]) -> str:
    known = f"known: {', '.join(profiles)}" if profiles else "the space has none, leave --profile out"
    return f"profile `{profile}` is not known{nearest(profile, profiles)}; {known}"


def _find(name: str) -> Path:
    known = search_spaces()
    if name in known:
        path = known[name].resolve()
        return path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path
    if "/" in name or name.endswith((".yaml", ".yml")):
        return Path(name).expanduser()
    raise SpaceError(
        f"search space `{name:.80}` is not known{nearest(name, known)}; known are {', '.join(known)}, "
        "and files by a path that ends in .yaml"
    )


def _recipes() -> Recipes:
    from fissura.recipes import RECIPES

    return RECIPES


def _mapping(plain: Any) -> dict[str, Any]:
    """A section, or nothing where the section is no mapping: that is told with the form of the file."""
    return plain if isinstance(plain, dict) else {}


class _Loading:
    """One file on its way to a LoadedSpace; gathers the problems."""

    def __init__(
        self, document: yaml.YamlDocument, recipes: Recipes, objectives: tuple[Objective, ...]
    ) -> None:
        self._document = document
        self._recipes = recipes
        self._objectives = objectives
        self._plain = dict(document.plain)
        if isinstance(self._plain.get("objective"), dict):
            self._plain["objective"] = [self._plain["objective"]]
        self._problems: set[tuple[int, str]] = set()
        self._notes_of_objectives: dict[yaml.Location, str] = {}
        self._effort, self._reading = Effort(), len(document.lines) // 20

    def load(self, *, profile: str | None, fixed: Mapping[str, Any]) -> LoadedSpace:
        layers: dict[str | None, tuple[Layer, Parameters]] = {}
        definition: SearchSpace | None = None
        recipe = self._recipe()
        try:
            definition = self._definition(profile)
            profiles = _mapping(self._plain.get("profiles"))
            if profile is not None and profile not in profiles:
                self._tell(("profiles",), _unknown_profile(profile, profiles))
            if recipe is not None and definition is not None:
                self._check_metrics(definition, recipe)
            for name in (None, *profiles):
                if recipe is None:
                    break
                layer = Layer(recipe, tell=self._tell, effort=self._effort)
                self._effort.spend(self._reading)
                layer.add_space(_mapping(self._plain.get("space")))
                if name is not None:
                    section = _mapping(profiles[name])
                    layer.add_profile({k: section[k] for k in section if k not in OF_THE_SEARCH}, name)
                if name == profile:
                    layer.add_fixed(fixed)
                layers[name] = layer, layer.parameters()
        except TooMuchToCheck as error:
            if not self._problems:
                self._problems.add((self._document.line(("space",)), f"`space`: {error}"))
        source = self._document.source
        if self._problems or definition is None:
            told = sorted(self._problems)[: yaml.PROBLEM_LIMIT]
            raise SpaceError(*(f"{source}:{line}: {text}" if line else text for line, text in told))
        layer, chosen = layers[profile]
        return LoadedSpace(
            recipe=chosen.recipe,
            entries=chosen.entries,
            name=Path(source).stem,
            source=source,
            text=self._document.text,
            profile=profile,
            definition=definition,
            notes=self._notes(definition, layer, chosen),
        )

    def _tell(self, location: yaml.Location | None, text: str) -> None:
        """Keeps a problem; a value from outside the file has no location."""
        self._effort.spend(PROBLEM_EFFORT)
        self._problems.add((0 if location is None else self._document.line(location), text))

    def _definition(self, profile: str | None) -> SearchSpace | None:
        """The file's form as a profile changes it; tells what is wrong with it under any."""
        definition = self._validated(self._plain, place=())
        if definition is None:
            return None
        for name, section in _mapping(self._plain.get("profiles")).items():
            own = {key: section[key] for key in OF_THE_SEARCH if key in section}
            changed = self._validated({**self._plain, **own}, place=("profiles", name)) if own else None
            if changed is not None and name == profile:
                definition = changed
        metrics = [objective.metric for objective in definition.objective]
        if len(set(metrics)) < len(metrics):
            self._tell(("objective",), "`objective`: a metric is given twice; remove one")
        if len(metrics) > 1 and not isinstance(definition.scheduler, RunAll):
            kind = definition.scheduler.kind
            self._tell(
                ("scheduler",),
                f"`scheduler`: {kind} compares trials by one objective, and there are {len(metrics)}; "
                "write {kind: none}, or keep one objective",
            )
        return self._with_objectives(definition)

    def _validated(self, plain: Mapping[str, Any], *, place: yaml.Location) -> SearchSpace | None:
        self._effort.spend(self._reading)
        try:
            return SearchSpace.model_validate_json(json.dumps(plain), strict=True)
        except ValidationError as error:
            for problem in problems(error):
                self._tell((*place, *problem["loc"]), broken_key(problem))
            return None

    def _check_metrics(self, definition: SearchSpace, recipe: "Experiment") -> None:
        place = None if self._objectives else ("objective",)
        for metric in (objective.metric for objective in definition.objective):
            if metric not in recipe.metrics:
                known = ", ".join(sorted(recipe.metrics))
                text = f"trials of recipe `{recipe.name}` report {known}; name one of these"
                self._tell(place, f"`objective`: `{metric}`: {text}")

    def _with_objectives(self, definition: SearchSpace) -> SearchSpace:
        """The definition with the objectives that were asked for in place of the file's."""
        if not self._objectives:
            return definition
        changed: dict[str, Any] = {"objective": self._objectives}
        if len(self._objectives) > 1 and not isinstance(definition.scheduler, RunAll):
            rule = f"compares trials by one objective, and there are {len(self._objectives)}"
            text = f"`scheduler`: {definition.scheduler.kind} {rule}; every trial runs to its end"
            self._notes_of_objectives["scheduler",] = text
            changed["scheduler"] = RunAll()
        return definition.model_copy(update=changed)

    def _recipe(self) -> "Experiment | None":
        name = self._plain.get("recipe")
        if not isinstance(name, str):
            return None
        if name in self._recipes:
            return self._recipes[name]()
        hint, known = nearest(name, self._recipes), ", ".join(self._recipes)
        self._tell(("recipe",), f"recipe `{name:.80}` is not known{hint}; known are {known}")
        return None

    def _notes(self, definition: SearchSpace, layer: Layer, chosen: Parameters) -> tuple[str, ...]:
        notes = {**layer.notes, **self._notes_of_objectives}
        scheduler, epochs = definition.scheduler, len(chosen.recipe_for(chosen.paper_point()).last_phase)
        if not isinstance(scheduler, RunAll) and scheduler.grace >= epochs > 1:
            grace = scheduler.grace
            rule = f"`scheduler.grace` is {grace} and a trial's last phase has {epochs} epochs"
            notes["scheduler", "grace"] = f"{rule}: none will be stopped"
        document = self._document
        return tuple(f"{document.source}:{document.line(place)}: {text}" for place, text in notes.items())
