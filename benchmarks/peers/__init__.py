"""What people use today: each reads the same manifest, and does POST, poll and download for every shot of it."""
