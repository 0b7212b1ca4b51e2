// swift-tools-version: 6.0
// No compiler has seen this package: it was written, and is parsed and compared with the Python reference, on Linux.
import PackageDescription

let package = Package(
    name: "MobileVideo",
    platforms: [.iOS(.v18), .macOS(.v15)],
    products: [.library(name: "MobileVideo", targets: ["MobileVideo"])],
    dependencies: [.package(url: "https://github.com/huggingface/swift-transformers", from: "1.0.0")],
    targets: [
        .target(
            name: "MobileVideo",
            dependencies: [.product(name: "Tokenizers", package: "swift-transformers")]
        ),
        .executableTarget(name: "MobileVideoApp", dependencies: ["MobileVideo"]),
    ]
)
