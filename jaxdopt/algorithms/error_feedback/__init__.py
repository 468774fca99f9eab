"""A server with compressed links, and the memories that make up for what is not sent."""
