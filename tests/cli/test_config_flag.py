"""The flag --config: the values that it says were changed."""

from absl import flags

from mobile_video_jax.cli.config import ConfigFlag
from mobile_video_jax.stages.config import DitTraining


def test_changed_values_are_what_the_config_holds_and_arguments_repeat_the_flags():
    none = flags.FlagValues()
    name, file = (flags.DEFINE_string(key, None, "", flag_values=none) for key in ("name", "file"))
    show = flags.DEFINE_bool("show", False, "", flag_values=none)
    none.mark_as_parsed()
    flag = ConfigFlag(lambda values: DitTraining, lambda: "dit:server", True, name=name, file=file, show=show)
    flag.read([("batch_size", "2e2"), ("mesh.fsdp", "16")])
    assert flag.changed == {"batch_size": 200, "mesh.fsdp": 16}
    assert flag.arguments == ["--config=dit:server", "--config.batch_size=2e2", "--config.mesh.fsdp=16"]
