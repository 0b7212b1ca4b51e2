"""What is read from a compiled program's text: loops, collectives, products and memory traffic."""

import pytest

from mobile_video_jax.core.errors import UserError
from mobile_video_jax.cost.tpu.collectives import collectives, group_size, summary
from mobile_video_jax.cost.tpu.compiler_flags import as_arguments, compiler_options
from mobile_video_jax.cost.tpu.hidden import hiding_seconds
from mobile_video_jax.cost.tpu.hlo import Program, Shape
from mobile_video_jax.cost.tpu.memory_traffic import memory_traffic, moved_bytes
from mobile_video_jax.cost.tpu.products import device_flops, vector_operations
from mobile_video_jax.cost.tpu.roofline import roofline
from mobile_video_jax.cost.tpu.topology import CHIPS, Topology, generation_of

# Three rounds of a loop: a gather in the background (a start, the fusion that hides it, an end: one channel), a
# product, a fused reduce-scatter, an update of one layer in place; then a sum over all four partitions.
TEXT = """HloModule step, is_scheduled=true

%all-reduce-scatter.1 (input: f32[64,32]) -> f32[32,32] {
  %input = f32[64,32]{1,0:T(8,128)} parameter(0)
  %all-reduce.1 = f32[64,32]{1,0:T(8,128)} all-reduce(%input), channel_id=2, replica_groups={{0,1},{2,3}}, to_apply=%add
  ROOT %dynamic-slice.1 = f32[32,32]{1,0:T(8,128)} dynamic-slice(%all-reduce.1, %zero)
}

%async_start (shard: bf16[16,64]) -> bf16[32,64] {
  %shard = bf16[16,64]{1,0} parameter(0)
  %all-gather.1 = bf16[32,64]{1,0} all-gather(%shard), channel_id=1, replica_groups=mesh['a'=2,'b'=2] {'b'}
  ROOT %custom-call.1 = bf16[32,64]{1,0} custom-call(%all-gather.1), custom_call_target="AsyncCollectiveStart"
}

%async_collective_fusion (shard: bf16[16,64], x: bf16[8,32], w: bf16[32,64]) -> bf16[8,64] {
  %shard = bf16[16,64]{1,0} parameter(0)
  %x = bf16[8,32]{1,0} parameter(1)
  %w = bf16[32,64]{1,0} parameter(2)
  %all-gather.2 = bf16[32,64]{1,0} all-gather(%shard), channel_id=1, replica_groups=mesh['a'=2,'b'=2] {'b'}
  ROOT %convolution.1 = bf16[8,64]{1,0} convolution(%x, %w), dim_labels=bf_io->bf
}

%update (stack: f32[3,64,32], layer: f32[64,32], i: s32[]) -> f32[3,64,32] {
  %stack = f32[3,64,32]{2,1,0} parameter(0)
  %layer = f32[64,32]{1,0} parameter(1)
  %i = s32[] parameter(2)
  %bitcast.1 = f32[1,64,32]{2,1,0} bitcast(%layer)
  ROOT %dynamic-update-slice.1 = f32[3,64,32]{2,1,0} dynamic-update-slice(%stack, %bitcast.1, %i)
}

%condition (state: (s32[], f32[3,64,32])) -> pred[] {
  %state = (s32[], f32[3,64,32]{2,1,0}) parameter(0)
  %constant.1 = s32[]{:T(128)} constant(3)
  %i = s32[] get-tuple-element(%state), index=0
  ROOT %lt = pred[] compare(%i, %constant.1), direction=LT
}

%body (state: (s32[], f32[3,64,32])) -> (s32[], f32[3,64,32]) {
  %state = (s32[], f32[3,64,32]{2,1,0}) parameter(0)
  %i = s32[] get-tuple-element(%state), index=0
  %stack = f32[3,64,32]{2,1,0} get-tuple-element(%state), index=1
  %shard = bf16[16,64]{1,0:T(8,128)(2,1)S(1)} constant({...})
  %x = bf16[8,32]{1,0} constant({...})
  %w = bf16[32,64]{1,0:T(8,128)(2,1)S(1)} fusion(%shard), kind=kCustom, calls=%async_start
  %y = bf16[8,64]{1,0} fusion(%shard, %x, %w), kind=kOutput, calls=%async_collective_fusion
  %layer = f32[64,32]{1,0:T(8,128)S(1)} constant({...})
  %scattered = f32[32,32]{1,0:T(8,128)S(1)} fusion(%layer), kind=kCustom, calls=%all-reduce-scatter.1
  %updated = f32[3,64,32]{2,1,0} fusion(%stack, %layer, %i), kind=kLoop, calls=%update
  ROOT %tuple.1 = (s32[], f32[3,64,32]{2,1,0}) tuple(%i, %updated)
}

ENTRY %main (start: (s32[], f32[3,64,32])) -> f32[128] {
  %start = (s32[], f32[3,64,32]{2,1,0}) parameter(0)
  %while.1 = (s32[], f32[3,64,32]{2,1,0}) while(%start), condition=%condition, body=%body
  %norms = f32[128]{0:T(128)S(1)} constant({...})
  %pair-start = (f32[128]{0}, f32[128]{0}) collective-permute-start(%norms), source_target_pairs={{0,2},{2,0}}
  %pair-done = f32[128]{0:T(128)S(1)} collective-permute-done(%pair-start)
  ROOT %all-reduce.2 = f32[128]{0:S(1)} all-reduce(%pair-done), channel_id=3, replica_groups=[1,4]<=[4], to_apply=%add
}
"""


# A step that takes one of two losses: the first has a product in a loop, the second sums over two chips.
CHOICE = """
%condition (i: s32[]) -> pred[] {
  %i = s32[] parameter(0)
  %constant.1 = s32[]{:T(128)} constant(5)
  ROOT %lt = pred[] compare(%i, %constant.1), direction=LT
}

%body (i: s32[]) -> s32[] {
  %i = s32[] parameter(0)
  %x = bf16[8,32]{1,0} constant({...})
  %w = bf16[32,64]{1,0} constant({...})
  %y = bf16[8,64]{1,0} convolution(%x, %w), dim_labels=bf_io->bf
  ROOT %next = s32[] add(%i, %i)
}

%critic (i: s32[]) -> f32[128] {
  %i = s32[] parameter(0)
  %while.1 = s32[] while(%i), condition=%condition, body=%body
  ROOT %zeros = f32[128]{0} constant({...})
}

%generator (i: s32[]) -> f32[128] {
  %i = s32[] parameter(0)
  %norms = f32[128]{0} constant({...})
  ROOT %sum = f32[128]{0} all-reduce(%norms), channel_id=3, replica_groups=[2,2]<=[4], to_apply=%add
}

ENTRY %main (i: s32[]) -> f32[128] {
  %i = s32[] parameter(0)
  ROOT %chosen = f32[128]{0} conditional(%i, %i, %i), branch_computations={%critic, %generator}
}
"""


def test_a_step_of_several_losses_is_the_mean_of_its_branches():
    program = Program(CHOICE, shares=(0.8, 0.2))
    assert {name: program.runs[name] for name in ("critic", "generator", "body")} == pytest.approx(
        {"critic": 0.8, "generator": 0.2, "body": 4.0}
    )
    topology = Topology("v5e:2x2")
    mean = roofline(program, topology)
    critic, generator = (roofline(Program(CHOICE, shares), topology) for shares in ((1.0, 0.0), (0.0, 1.0)))
    assert critic.compute > 0 and generator.compute == 0 and critic.ici == 0 and generator.ici > 0
    for part in ("compute", "hbm", "ici", "operations"):
        expected = 0.8 * getattr(critic, part) + 0.2 * getattr(generator, part)
        assert getattr(mean, part) == pytest.approx(expected)


def test_a_condition_is_a_choice_whose_first_branch_is_false():
    listed = "branch_computations={%critic, %generator}"
    text = CHOICE.replace(listed, "true_computation=%generator, false_computation=%critic")
    assert text != CHOICE and Program(text, (0.8, 0.2)).runs == Program(CHOICE, (0.8, 0.2)).runs


def test_branches_of_other_choices_are_all_counted():
    assert Program(CHOICE).runs["body"] == 5 and Program(CHOICE, (0.1, 0.2, 0.7)).runs["generator"] == 1


@pytest.fixture(scope="module")
def program():
    return Program(TEXT)


def test_collectives_count_once_a_round_and_no_copy_twice(program):
    assert summary(collectives(program)) == {
        "all-gather": {"count": 3, "bytes": 3 * 16 * 64 * 2, "dcn_bytes": 0},
        "all-reduce": {"count": 1, "bytes": 2 * 128 * 4 * 3 // 4, "dcn_bytes": 0},
        "collective-permute": {"count": 1, "bytes": 128 * 4, "dcn_bytes": 0},
        "reduce-scatter": {"count": 3, "bytes": 3 * 64 * 32 * 4 // 2, "dcn_bytes": 0},
    }


def test_what_crosses_slices_is_told_apart():
    """A program of slices sends to the host, under the name of what the hosts do with it."""
    line = (
        "  %send.1 = (f32[128]{0}, u32[], token[]) send(%x, %after-all.1), channel_id=1, is_host_transfer=true, "
        'frontend_attributes={_xla_megascale_transfer_type="ALL_REDUCE"}\n'
    )
    arrays = "  %x = f32[128]{0} parameter(0)\n  %after-all.1 = token[] after-all()\n"
    between = collectives(Program("ENTRY %main (x: f32[128]) -> f32[] {\n" + arrays + line + "}"), slices=4)
    assert summary(between) == {"all-reduce": {"count": 1, "bytes": 0, "dcn_bytes": 2 * 512 * 3 // 4}}


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("replica_groups={{0,1},{2,3}}, x", 2),
        ("replica_groups=[2,4]<=[8], x", 4),
        ("replica_groups=[2,4]<=[4,2]T(1,0), x", 4),
        ("replica_groups=mesh['a'=2,'b'=3] {'a'}, dimensions={0}", 2),
        ("replica_groups=mesh['a'=2,'b'=3] {'a','b'}, x", 6),
        ("replica_groups=mesh['a'=2,'b'=1,'c'=3], device_ids=([2,3]T(1,0)) {'c'}, x", 3),
    ],
)
def test_groups_are_read_in_every_form(text, size):
    assert group_size(text) == size


def test_slicing_and_updating_in_place_moves_the_slice(program):
    body = program.computations["body"]
    assert moved_bytes(program, body["updated"], body) == 64 * 32 * 4 + 4  # and the place
    # The product reads x and writes y; its other factor and the shard lie in VMEM.
    assert moved_bytes(program, body["y"], body) == (8 * 32 + 8 * 64) * 2
    entry = program.computations["main"]
    rest = sum(moved_bytes(program, each, entry) for each in entry.values())
    assert memory_traffic(program) == rest + 3 * sum(moved_bytes(program, each, body) for each in body.values())


def test_products_are_counted_by_the_taps_that_meet_an_input(program):
    body = program.computations["body"]
    assert device_flops(program, body["y"], body) == 2 * 8 * 32 * 64
    # 32 heads as a window over padding: one tap each.
    line = (
        "  %c = bf16[4,96,32,64]{3,2,1,0} convolution(%x, %w), window={size=1x32 pad=0_0x31_31 rhs_reversal=0x1}, "
        "dim_labels=0bf1_1oi0->0b1f\n"
    )
    arrays = "  %x = bf16[4,96,128,1]{3,2,1,0} parameter(0)\n  %w = bf16[32,64,128,1]{3,2,1,0} parameter(1)\n"
    padded = Program("ENTRY %main (x: f32[]) -> f32[] {\n" + arrays + line + "}")
    main = padded.computations["main"]
    assert device_flops(padded, main["c"], main) == 2 * 4 * 96 * 128 * 32 * 64


def test_bytes_of_types():
    sizes = {"bf16": 2, "f32": 4, "pred": 1, "s8": 1, "f8e4m3fn": 1, "u32": 4}
    assert {dtype: Shape(dtype, (1,), False).bytes for dtype in sizes} == sizes


def test_the_roofline_is_between_all_hidden_and_nothing_hidden(program):
    line = roofline(program, Topology("v5e:2x2"))
    assert line.compute == 3 * 2 * 8 * 32 * 64 / 197e12
    assert line.hbm == memory_traffic(program) / 819e9
    assert line.ici == sum(row["bytes"] for row in summary(collectives(program)).values()) / 100e9 and line.dcn == 0
    assert line.overlapped <= line.step <= line.serial
    assert line.step == pytest.approx(max(line.compute, line.hbm) + line.exposed)
    # The gather moves while its fusion runs, the permutation between its start and its end, where nothing runs.
    body = program.computations["body"]
    gather, hidden = 3 * 16 * 64 * 2 / 100e9, 3 * moved_bytes(program, body["y"], body) / 819e9
    assert hidden < gather and line.ici - line.exposed == pytest.approx(hidden)


def test_what_is_scheduled_between_a_start_and_its_end_hides_a_collective():
    text = """ENTRY %main (x: f32[1024]) -> f32[1024] {
  %x = f32[1024]{0} parameter(0)
  %y = f32[1024]{0} negate(%x)
  %move-start = (f32[1024]{0}, f32[1024]{0}) collective-permute-start(%x), channel_id=5, source_target_pairs={{0,1}}
  %z = f32[1024]{0} negate(%y)
  %move-done = f32[1024]{0} collective-permute-done(%move-start)
  ROOT %sum = f32[1024]{0} add(%z, %move-done)
}
"""
    assert hiding_seconds(Program(text), lambda instruction, computation: 1.0) == {"5": 1.0}


def test_flags_are_those_of_the_generation_or_those_that_are_named():
    assert compiler_options("", "v5p")["xla_tpu_overlap_compute_collective_tc"] is True
    assert compiler_options("", None) == compiler_options("none", "v5p") == {}
    named = "--xla_tpu_a=true xla_b=98304 --xla_c=0.5 --xla_d=text"
    assert compiler_options(named, "v5e") == {"xla_tpu_a": True, "xla_b": 98304, "xla_c": 0.5, "xla_d": "text"}
    assert as_arguments(compiler_options("--xla_tpu_a=true --xla_b=3", "v6e")) == "--xla_tpu_a=true --xla_b=3"
    with pytest.raises(UserError, match="'--fast' is not of the form --xla_NAME=VALUE"):
        compiler_options("--fast", "v5p")


def test_devices_belong_to_their_generation():
    assert {generation_of(chip.kind) for chip in CHIPS.values()} == set(CHIPS) and generation_of("cpu") is None


def test_an_unknown_topology_lists_the_known():
    for name in ("v5e-16", "v5p:3x3x3", "v9:2x2", ""):
        with pytest.raises(UserError, match=r"is unknown; use GENERATION:SHAPE of v4: .*v6e: 2x2, .*16x16"):
            Topology(name)
    with pytest.raises(UserError, match="use 1 or more"):
        Topology("v5e:2x2", 0)
    assert all(Topology(f"{name}:{shape}").chip is chip for name, chip in CHIPS.items() for shape in chip.shapes)


@pytest.mark.parametrize("batch", ["", "3,"])
def test_attention_kernels_are_counted_also_where_a_batch_of_one_has_no_axis(batch):
    text = f"""HloModule m
ENTRY %main (q: bf16[{batch}4,256,64], k: bf16[{batch}4,512,64], mask: s32[4,2,2]) -> bf16[{batch}4,256,64] {{
  %mask = s32[4,2,2] parameter(2)
  %q = bf16[{batch}4,256,64] parameter(0)
  %k = bf16[{batch}4,512,64] parameter(1)
  ROOT %splash_mha_fwd.1 = bf16[{batch}4,256,64] custom-call(%mask, %q, %k), custom_call_target="tpu_custom_call"
}}
"""
    program = Program(text)
    main = program.computations[program.entry]
    # Logits and output; heads of 64 occupy 128, and on v6e, whose arrays are 256 wide, 256.
    assert device_flops(program, main["splash_mha_fwd.1"], main) == (3 if batch else 1) * 2 * 2 * 4 * 256 * 512 * 128
    wide = device_flops(program, main["splash_mha_fwd.1"], main, CHIPS["v6e"].array)
    assert wide == 2 * device_flops(program, main["splash_mha_fwd.1"], main)
    assert vector_operations(main["splash_mha_fwd.1"], main) == (3 if batch else 1) * 8 * 4 * 256 * 512
    assert roofline(program, Topology("v5p:2x2x1")).vector > 0
