"""Loading of datasets as TensorFlow batches: reading, shuffling and augmentation."""
