"""Weight clustering by TF-MOT."""

from typing import Any

from keras_opt.compression.bridge.tf_keras_import import tfmot
from keras_opt.compression.bridge.tf_keras_models import as_tf_keras, ready_for_fit, wrap_layers
from keras_opt.compression.bridge.tfmot_prune import warn_of_layers_left
from keras_opt.core.errors import check_at_least, check_choice


def tfmot_cluster(
    model: Any,
    number_of_clusters: int = 16,
    cluster_centroids_init: Any = "KMEANS_PLUS_PLUS",
    preserve_sparsity: bool = False,
) -> Any:
    """Returns a tf_keras model in TF-MOT's clustering wrappers, ready for `compile` and `fit`.

    Each kernel then has `number_of_clusters` different values at most, so that its file compresses well; neither the
    file itself nor the interpreter gains. Cluster a trained model and train it a little further at a low rate.

    `fit` of the result takes callbacks of Keras 3 and keras_opt (see `for_tf_keras`). Compile it as a tf_keras model.
    `copy_weights_back` brings the clustered weights into `model`, if that is a Keras 3 model.

    Args:
        model: A functional or Sequential model of Keras 3 or tf_keras, also one of `tfmot_prune`; left as it is.
        number_of_clusters: Int of at least 2 (3 with `preserve_sparsity`). Default 16.
        cluster_centroids_init: `"LINEAR"`, `"RANDOM"`, `"DENSITY_BASED"` or `"KMEANS_PLUS_PLUS"`, or TF-MOT's
            `CentroidInitialization`. Default `"KMEANS_PLUS_PLUS"`.
        preserve_sparsity: Whether what is zero stays zero, for a pruned model. Default `False`.

    Raises:
        ValueError: `to_tf_keras` refuses the model, or an argument is out of its range.
        TypeError: `model` is of another kind.

    Warns:
        NoEffectWarning: Kernels are left as they are, since TF-MOT knows no way or they have no more weights than there
            are clusters; their layers are named.

    Source: S. Han et al., 2016, "Deep Compression", section 3.

    Example:
        >>> import keras
        >>> from keras_opt.compression import tfmot_cluster
        >>> model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(8)])
        >>> wrapped = tfmot_cluster(model, number_of_clusters=8)
    """
    check_at_least("tfmot_cluster", "number_of_clusters", number_of_clusters, 3 if preserve_sparsity else 2)
    clustering = tfmot().clustering.keras
    inits = {each.name: each for each in clustering.CentroidInitialization}
    name = getattr(cluster_centroids_init, "name", cluster_centroids_init)
    check_choice("tfmot_cluster", "cluster_centroids_init", name, inits)
    source = as_tf_keras("tfmot_cluster", model)

    def wrap(layer: Any) -> Any:
        try:
            wrapped = clustering.cluster_weights(
                layer, int(number_of_clusters), inits[name], preserve_sparsity=preserve_sparsity
            )
        except ValueError:
            return None
        weights = layer.get_clusterable_weights() if hasattr(layer, "get_clusterable_weights") else []
        is_wide = all(weight.shape.num_elements() > number_of_clusters for _, weight in weights)
        return wrapped if weights and is_wide else None

    clustered, left = wrap_layers(source, wrap)
    warn_of_layers_left("tfmot_cluster", "cluster", left, "they stay as they are")
    return ready_for_fit(clustered, source)
