//! Azure Cosmos DB for NoSQL on this machine: one gateway per region, multi-region writes.
