"""The learning-rate schedules that Keras does not have."""

import keras


class WarmUp(keras.optimizers.schedules.LearningRateSchedule):
    """`schedule`, but in the first `steps` steps the rate rises evenly to what the schedule says: by 1/steps each."""

    def __init__(self, schedule, steps: int):
        self.schedule, self.steps = schedule, steps

    def __call__(self, step):
        risen = (keras.ops.cast(step, 'float32') + 1.0) / self.steps
        return keras.ops.minimum(risen, 1.0) * self.schedule(step)
