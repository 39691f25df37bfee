"""What runs on hosts of a cluster, and the tools for it: Ray, the Report Site, Docker, files."""
