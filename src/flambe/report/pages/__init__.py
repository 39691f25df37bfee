"""The pages of the site: each is a module with a ``PAGE``, and a template."""
