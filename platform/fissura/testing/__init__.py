"""What every loss and every network is held to, and slow formulas to compare with: for the project's own and
for those outside of it.

- `fissura.testing.losses`: `LossCase`, `LOSS_CHECKS`, `check_loss`
- `fissura.testing.formulas`: the project's losses pixel by pixel, in NumPy
- `fissura.testing.models`: `ModelCase`, `MODEL_CHECKS`, `check_model`
- `fissura.testing.shapes`: `check_shapes`, which looks at the shapes in signatures at run time

A check is a function of a case that raises an AssertionError. pytest is not needed; with it, each check of
each case is best a test of its own:

    @pytest.mark.parametrize("check", LOSS_CHECKS, ids=lambda check: check.__name__)
    def test_my_loss(check): check(LossCase(MyLoss(), formula=my_formula))
"""
