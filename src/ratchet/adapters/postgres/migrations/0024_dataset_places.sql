-- Manifests of dataset versions with the packs that they name.  One version may have several: whose
-- packs were taken away and written anew lies elsewhere.  A run keeps the one that it reads.
CREATE TABLE dataset_places (
    uri   text PRIMARY KEY,
    packs text[] NOT NULL
);
INSERT INTO dataset_places SELECT uri, packs FROM datasets WHERE packs IS NOT NULL
ON CONFLICT DO NOTHING;
