"""The snippet of countless tutorials for `ImageDataGenerator`, with its imports and two names changed."""

import keras
import numpy as np
from image_folders import write_images

from keras_opt.data import image_folder
from keras_opt.layers import RandomAffine


def test_the_snippet_trains(tmp_path):
    write_images(tmp_path / "train", count=20, size=96, classes=("blue", "green"))

    train_datagen = RandomAffine.from_image_data_generator(  # ImageDataGenerator(
        rotation_range=20,
        width_shift_range=0.2,
        height_shift_range=0.2,
        horizontal_flip=True,
        vertical_flip=True,
        rescale=1.0 / 255,
    )
    train_generator, _ = image_folder(  # train_datagen.flow_from_directory(
        tmp_path / "train", augment=train_datagen, target_size=(224, 224), batch_size=32, class_mode="categorical"
    )

    model = keras.Sequential(
        [
            keras.Input((224, 224, 3)),
            keras.layers.Conv2D(4, 7, strides=4, activation="relu"),
            keras.layers.GlobalAveragePooling2D(),
            keras.layers.Dense(2, activation="softmax"),
        ]
    )
    model.compile("adam", "categorical_crossentropy", metrics=["accuracy"])
    history = model.fit(train_generator, epochs=2, shuffle=False, verbose=0)

    assert np.isfinite(history.history["loss"]).all()
    images, labels = next(iter(train_generator))
    assert images.shape == (32, 224, 224, 3)
    assert images.dtype == "float32"
    assert 0 <= images.numpy().min() < 0.3
    assert 0.7 < images.numpy().max() <= 1
    np.testing.assert_array_equal(labels.numpy().sum(axis=1), 1)
    assert train_generator.class_names == ("blue", "green")
