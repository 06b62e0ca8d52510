//! The key broker: releases secrets and sealing keys to guests that meet policy.
