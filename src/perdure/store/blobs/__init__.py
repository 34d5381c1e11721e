"""Contents of files: blobs in a directory or a bucket, manifests of directories, objects at URLs, files of users."""
